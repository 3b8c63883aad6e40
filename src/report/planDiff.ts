/** What differs between two plans: inputs, strategy, memory by item, predicted time by op kind. */
import { planCost } from '../plan/cost.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { peakItems, type PoolLedger } from '../memory/ledger.js';

export type Compared = Pick<
  ExecutionPlan,
  'digest' | 'model' | 'cluster' | 'run' | 'deepspeed' | 'strategy' | 'kernels' | 'memory' | 'prediction'
>;

/** A setting by its path, such as `run.seqLen`; null where a plan does not have it. */
export interface SettingChange {
  readonly path: string;
  readonly a: unknown;
  readonly b: unknown;
}

export interface NumberChange {
  readonly name: string;
  readonly a: number;
  readonly b: number;
}

type PeakInstant = PoolLedger['peakInstant'];

/** Bytes of a rank at each plan's own peak. A pool that a plan does not have is empty, and has no instant. */
export interface PoolChange {
  readonly pool: string;
  readonly peakBytes: { readonly a: number; readonly b: number };
  readonly capacityBytes: { readonly a: number; readonly b: number };
  readonly peakInstant: { readonly a: PeakInstant | null; readonly b: PeakInstant | null };
  /** Items whose bytes differ, the largest change first; 0 where a peak does not have one. */
  readonly items: readonly NumberChange[];
}

/** Only what differs. JSON-safe. */
export interface PlanDiff {
  readonly kind: 'planDiff';
  /** Whether they execute the same: their digests are equal. */
  readonly sameDigest: boolean;
  readonly inputs: readonly SettingChange[];
  readonly strategy: readonly SettingChange[];
  readonly memory: readonly PoolChange[];
  /** Step time, throughput and cost. */
  readonly step: readonly NumberChange[];
  /** Seconds by op kind, the largest change first; 0 where a plan has none of a kind. */
  readonly kindSeconds: readonly NumberChange[];
}

export function diffPlans(a: Compared, b: Compared): PlanDiff {
  return {
    kind: 'planDiff',
    sameDigest: a.digest === b.digest,
    inputs: settingChanges(inputsOf(a), inputsOf(b)),
    strategy: settingChanges(strategyOf(a), strategyOf(b)),
    memory: poolChanges(a, b),
    step: numberChanges(stepNumbers(a), stepNumbers(b)),
    kindSeconds: byChange(numberChanges(kindSeconds(a), kindSeconds(b))),
  };
}

/** Whether nothing differs that a reader of plans sees. */
export function isSame({ sameDigest, inputs, strategy, memory, step, kindSeconds }: PlanDiff): boolean {
  return sameDigest && [inputs, strategy, memory, step, kindSeconds].every(({ length }) => length === 0);
}

/** A model's programs follow from its config. */
function inputsOf({ model, cluster, run, deepspeed }: Compared): object {
  const { code: _code, ...config } = model;
  return { model: config, cluster, run, deepspeed };
}

function strategyOf({ strategy, kernels }: Compared): object {
  return { strategy, kernels };
}

function settingChanges(a: object, b: object): readonly SettingChange[] {
  const [before, after] = [leaves(a), leaves(b)];
  const paths = [...new Set([...before.keys(), ...after.keys()])];
  const changes = paths.map((path) => ({ path, a: before.get(path) ?? null, b: after.get(path) ?? null }));
  return changes.filter((one) => JSON.stringify(one.a) !== JSON.stringify(one.b));
}

/** Values by path. A list of plain values is one value, as is what is empty. */
function leaves(value: object, prefix = ''): ReadonlyMap<string, unknown> {
  return new Map(
    Object.entries(value).flatMap(([key, inner]): readonly (readonly [string, unknown])[] => {
      const path = `${prefix}${key}`;
      return isNested(inner) ? [...leaves(inner, `${path}.`)] : [[path, inner]];
    }),
  );
}

function isNested(value: unknown): value is object {
  if (Array.isArray(value)) return value.some(isNested);
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

function poolChanges(a: Compared, b: Compared): readonly PoolChange[] {
  const names = [...new Set([...a.memory.pools, ...b.memory.pools].map(({ pool }) => pool))];
  const of = ({ memory }: Compared, name: string): PoolLedger | undefined => memory.pools.find(({ pool }) => pool === name);
  const changes = names.map((pool) => poolChange(pool, of(a, pool), of(b, pool)));
  return changes.filter(
    ({ peakBytes, capacityBytes, items }) => peakBytes.a !== peakBytes.b || capacityBytes.a !== capacityBytes.b || items.length > 0,
  );
}

function poolChange(pool: string, a: PoolLedger | undefined, b: PoolLedger | undefined): PoolChange {
  return {
    pool,
    peakBytes: { a: a?.peakBytes ?? 0, b: b?.peakBytes ?? 0 },
    capacityBytes: { a: a?.capacityBytes ?? 0, b: b?.capacityBytes ?? 0 },
    peakInstant: { a: a?.peakInstant ?? null, b: b?.peakInstant ?? null },
    items: byChange(numberChanges(itemBytes(a), itemBytes(b))),
  };
}

/** Items of one name are one. */
function itemBytes(pool: PoolLedger | undefined): ReadonlyMap<string, number> {
  const bytes = new Map<string, number>();
  for (const item of pool === undefined ? [] : peakItems(pool)) bytes.set(item.name, (bytes.get(item.name) ?? 0) + item.bytes);
  return bytes;
}

function stepNumbers(plan: Compared): ReadonlyMap<string, number> {
  const { stepSeconds, tokensPerSecond, exposedCopySeconds, hostBoundSeconds, mfu } = plan.prediction;
  const { gpuHoursPerBillionTokens } = planCost(plan);
  return new Map(
    Object.entries({ stepSeconds, tokensPerSecond, mfu: mfu.causalModel, exposedCopySeconds, hostBoundSeconds, gpuHoursPerBillionTokens }),
  );
}

function kindSeconds({ prediction }: Compared): ReadonlyMap<string, number> {
  return new Map(Object.entries(prediction.byKind).map(([kind, { seconds }]) => [kind, seconds]));
}

function numberChanges(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): readonly NumberChange[] {
  const names = [...new Set([...a.keys(), ...b.keys()])];
  return names.map((name) => ({ name, a: a.get(name) ?? 0, b: b.get(name) ?? 0 })).filter((one) => one.a !== one.b);
}

function byChange(changes: readonly NumberChange[]): readonly NumberChange[] {
  return changes.toSorted((one, other) => Math.abs(other.b - other.a) - Math.abs(one.b - one.a));
}
