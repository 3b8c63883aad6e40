/** Sizes that no model has: lists of that length would take the planner's memory, and products would not be exact. */
import { FpdtError } from '../../spec/errors.js';
import type { ModelSpec } from '../../spec/types.js';
import { parameterTable } from '../parameters.js';
import { keysOf, type Settings } from './settings.js';
import type { WrittenFamily } from './written.js';

/** What the planner makes a list of. */
const MOST: Readonly<Record<string, number>> = { numLayers: 10_000, numHeads: 65_536, numKvHeads: 65_536 };
/** PyTorch's own limit of many kernels. */
const MOST_OF_OTHERS = 2 ** 31 - 1;
/** A thousand times the largest models; bytes of all states stay exact. */
const MOST_PARAMETERS = 2 ** 48;

/** Throws `too-large`. */
export function checkSizes({ settings: written }: WrittenFamily, settings: Settings): void {
  for (const [name, setting] of Object.entries(written)) {
    const value = settings.get(name);
    const most = MOST[name] ?? (setting.size === undefined ? Number.MAX_VALUE : MOST_OF_OTHERS);
    if (typeof value !== 'number' || value <= most) continue;
    const [key = name] = keysOf(setting);
    throw new FpdtError(`model config.${key}: ${value} is more than the ${most} that a model may have`, {
      code: 'too-large',
      hint: `no model is that large: correct ${key}`,
      details: { path: `model config.${key}` },
    });
  }
}

/** Throws `too-large`. */
export function checkTotal(model: ModelSpec): void {
  const { numModelParameters: total } = parameterTable(model);
  if (total <= MOST_PARAMETERS) return;
  const { numLayers, hiddenSize, vocabSize } = model;
  throw new FpdtError(`model config: ${total.toPrecision(3)} parameters are more than the ${MOST_PARAMETERS} that a model may have`, {
    code: 'too-large',
    hint: `correct the sizes, such as ${numLayers} layers of ${hiddenSize} and a vocabulary of ${vocabSize}`,
  });
}
