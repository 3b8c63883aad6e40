/** Keys of a ds_config, against the DeepSpeed that is installed: its table, and what it takes or refuses of every key. */
import { beforeAll, expect, it } from 'vitest';
import { deepspeedSays } from '../../scripts/deepspeed/deepspeedSays.js';
import { checkKeys } from '../../src/spec/deepspeedCheck.js';
import { precisionProblems } from '../../src/spec/deepspeedPrecision.js';
import { DeepSpeedReport } from '../../src/spec/deepspeedReport.js';
import { withNewNames } from '../../src/spec/deepspeedRenamed.js';
import { DEEPSPEED, type KeyTable } from '../../src/spec/deepspeedTable.js';
import type { JsonObject } from '../../src/spec/parseJson.js';

/** Values with which models say more than their fields' types do, or which no key of a plain dict is looked at for. */
const VALUES = [-5, -1, 0, 0.5, 1, 2, '1', '0.5', 'yes', 'True', 'cpu', 'nonsense', true, null, 'auto', [], {}];
/** Refused by name (src/spec/deepspeedRefuse.ts), whatever is in them. */
const REFUSED = ['zero_optimization.zenflow', 'compile', 'hybrid_engine', 'comet'];
/** Where a validator looks at more than its own field, or a field is no plain type. */
const OWN_RULES = [
  'bf16.bf16_optimizer_states',
  'bfloat16.bf16_optimizer_states',
  'zero_optimization.compute_grad_norm',
  'zero_optimization.leaf_module',
  'comms_logger.prof_ops',
];

const paths = modelPaths(DEEPSPEED.keys, '').filter((path) => ![...REFUSED, ...OWN_RULES].some((one) => path.startsWith(one)));
const configs = paths.flatMap((path) => VALUES.map((value) => withStage(configOf(path.split('.'), value))));
let table: unknown;
let taken: readonly boolean[];

beforeAll(async () => {
  table = await deepspeedSays('table');
  const said = await deepspeedSays(
    'configs',
    configs.map((config) => ({ config })),
  );
  taken = (said as readonly { readonly error?: string }[]).map(({ error }) => error === undefined);
});

it('the table is what the installed DeepSpeed says', () => {
  expect(DEEPSPEED).toEqual(table);
});

it('a value of a model is refused where DeepSpeed refuses it', () => {
  expect(configs.filter((config, i) => isTaken(config) !== taken[i]).map((config) => JSON.stringify(config))).toEqual([]);
  expect(paths.length).toBeGreaterThan(90);
  expect(taken).toContain(false);
});

/** Keys of sections that are models, by both names. */
function modelPaths(keys: KeyTable, at: string, isModel = false): readonly string[] {
  return Object.entries(keys).flatMap(([key, row]) => {
    const path = at === '' ? key : `${at}.${key}`;
    const names = row.alias === undefined ? [path] : [path, `${at}.${row.alias}`];
    if (row.keys === undefined) return isModel ? names : [];
    return [...(isModel ? [path] : []), ...modelPaths(row.keys, path, row.strict === true)];
  });
}

function withStage(config: JsonObject): JsonObject {
  const zero = { stage: 3, ...(config.zero_optimization as JsonObject | undefined) };
  return { train_micro_batch_size_per_gpu: 1, ...config, zero_optimization: zero };
}

function configOf([key = '', ...rest]: readonly string[], value: unknown): JsonObject {
  return { [key]: rest.length === 0 ? value : configOf(rest, value) };
}

function isTaken(config: JsonObject): boolean {
  const report = new DeepSpeedReport(new Map());
  report.add(...precisionProblems(withNewNames(checkKeys(config, report), report), { dtype: 'float32', lossScale: 1 }));
  return report.problems.length === 0;
}
