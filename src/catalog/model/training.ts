/** What of a model trains: all of it, what is not frozen, or adapters beside its linear modules. */
import { FpdtError } from '../../spec/errors.js';
import type { LoraConfig } from '../../spec/loraConfig.js';
import { frozenWeights, type NamedWeight } from './freeze.js';
import { type Adapter, loraAdapters } from './lora.js';

/** What is asked for; left out, all of a model trains. */
export interface TrainingRequest {
  /** Names of weights that do not train, or patterns of them. */
  readonly freeze?: readonly string[] | undefined;
  readonly lora?: LoraConfig | undefined;
}

/** The answer for one module's programs, by the names that those give to weights and modules. */
export interface Training {
  readonly isFrozen: (weight: string) => boolean;
  readonly adapterOf: (module: string) => Adapter | undefined;
}

/** Names of weights: of the ends by their names in the model, of a layer relative to it, the same for all. */
export interface ModelWeights {
  readonly embed: readonly string[];
  readonly head: readonly string[];
  readonly lmHead: readonly string[];
  readonly layer: readonly string[];
  /** Linear modules of a layer. */
  readonly linear: readonly string[];
  /** Module that holds the layers, and their number. */
  readonly layers: string;
  readonly numLayers: number;
  /** Module of lm_head, whose weight may be the embedding's. */
  readonly lmHeadModule: string;
}

export interface ResolvedTraining {
  readonly ofEnds: Training;
  /** By layer. */
  readonly ofLayers: readonly Training[];
}

/** Throws where what is asked for names nothing, leaves nothing to train, or is asked for twice. */
export function resolveTraining(weights: ModelWeights, { freeze = [], lora }: TrainingRequest): ResolvedTraining {
  const prefixes = Array.from({ length: weights.numLayers }, (_, layer) => `${weights.layers}.${layer}.`);
  if (lora !== undefined && freeze.length > 0) {
    throw new FpdtError('run.freeze: with LoRA nothing but adapters trains anyway', {
      code: 'invalid-value',
      hint: 'leave freeze out; layers_to_transform and exclude_modules say which modules have adapters',
    });
  }
  if (lora !== undefined) {
    const adapters = loraAdapters(lora, {
      layers: weights.layers,
      linear: prefixes.flatMap((prefix) => weights.linear.map((name) => prefix + name)),
      others: otherModules(weights, prefixes),
    });
    const training = (prefix: string): Training => ({ isFrozen: () => true, adapterOf: (module) => adapters.get(prefix + module) });
    return { ofEnds: training(''), ofLayers: prefixes.map(training) };
  }
  const frozen = frozenWeights(freeze, namedWeights(weights, prefixes));
  const training = (prefix: string): Training => ({ isFrozen: (name) => frozen.has(prefix + name), adapterOf: () => undefined });
  return { ofEnds: training(''), ofLayers: prefixes.map(training) };
}

/** Those of a tied lm_head under both names. */
function namedWeights({ embed, head, lmHead, layer, lmHeadModule }: ModelWeights, prefixes: readonly string[]): readonly NamedWeight[] {
  const own = [...embed, ...prefixes.flatMap((prefix) => layer.map((name) => prefix + name)), ...head, ...lmHead];
  const [tied] = lmHead.length === 0 ? embed : [];
  const alias = tied === undefined ? [] : [{ name: `${lmHeadModule}.weight`, weight: tied }];
  return [...own.map((name): NamedWeight => ({ name, weight: name })), ...alias];
}

function otherModules({ embed, head, layer, linear, lmHeadModule }: ModelWeights, prefixes: readonly string[]): readonly string[] {
  const moduleOf = (name: string): string => name.split('.').slice(0, -1).join('.');
  const norms = layer.map(moduleOf).filter((name) => !linear.includes(name));
  return [
    ...new Set([
      ...embed.map(moduleOf),
      ...prefixes.flatMap((prefix) => norms.map((name) => prefix + name)),
      ...head.map(moduleOf),
      lmHeadModule,
    ]),
  ];
}
