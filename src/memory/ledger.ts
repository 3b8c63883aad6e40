/** What a plan needs of each memory pool: persistent items and the largest of a few named instants. */
import { poolsOf } from '../catalog/pools.js';
import type { NamedPool, PoolKind } from '../spec/pools.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { derived, INSTANTS, type InstantName, LOAD, type MemoryItem, nonEmpty, sumBytes } from './items.js';
import { loadItems } from './load.js';
import { modelStates } from './modelStates.js';
import type { ScheduleUse, Temporary } from './scheduleUse.js';

export { INSTANTS, type InstantName, LOAD, type MemoryItem } from './items.js';
export { scheduleUse, type ScheduleUse } from './scheduleUse.js';

/** What is there only at one instant of the step, beside the persistent items; at the load it is everything. */
export interface MemoryInstant {
  readonly name: InstantName | typeof LOAD;
  readonly items: readonly MemoryItem[];
  /** Persistent bytes plus these items. */
  readonly totalBytes: number;
}

export interface PoolLedger {
  /** Name of the pool. */
  readonly pool: string;
  readonly kind: PoolKind;
  readonly capacityBytes: number;
  /** Of them, left free. */
  readonly reserveBytes: number;
  readonly persistent: readonly MemoryItem[];
  readonly instants: readonly MemoryInstant[];
  /** The peak of start-up. Nothing persistent is there but what its items name: arenas are not allocated yet. */
  readonly load: MemoryInstant;
  readonly peakBytes: number;
  readonly peakInstant: MemoryInstant['name'];
  readonly fits: boolean;
}

export interface MemoryLedger {
  readonly kind: 'memoryLedger';
  readonly fits: boolean;
  /** The device's first. */
  readonly pools: readonly PoolLedger[];
}

/**
 * Reserved over allocated bytes of PyTorch's caching allocator: 4% median, 9% worst over published runs. Charged on what comes
 * and goes; the arenas and model states are allocated once.
 */
const ALLOCATOR_RESERVE = 0.09;

export interface LedgerInput {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly cluster: ClusterSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly parameters: ParameterTable;
  /** Bytes of the arenas, as laid out, by pool. */
  readonly arenaBytes: Readonly<Record<string, number>>;
  readonly use: ScheduleUse;
}

export function buildLedger(input: LedgerInput): MemoryLedger {
  const { model, run, cluster, deepspeed, parameters, use } = input;
  const sizes = {
    parameters,
    run,
    deepspeed,
    classOf: model.code.classOf,
    tieWordEmbeddings: model.tieWordEmbeddings,
    numRanks: cluster.numRanks,
    extraLayers: use.extraLayers,
  };
  const states = modelStates(sizes);
  const overheads = cluster.overheads.map(({ name, bytes, provenance, source }) => ({ name, bytes, provenance, note: source }));
  // On a CPU PyTorch allocates what is offloaded like everything else of its own: beside the arena of the device's pool.
  const isOneMemory = cluster.device === 'cpu';
  const persistent: Readonly<Record<PoolKind, readonly MemoryItem[]>> = {
    device: [...overheads, ...states.device, ...(isOneMemory ? states.pinned : [])],
    pinned: isOneMemory ? [] : states.pinned,
    file: [],
  };
  const loads = loadItems({ ...sizes, device: cluster.device, deviceBytes: cluster.hbmBytes - sumBytes(overheads) });
  const load: Readonly<Record<PoolKind, readonly MemoryItem[]>> = {
    device: [...overheads, ...loads.device.kept, ...withReserve(loads.device.passing, cluster.device)],
    pinned: [...loads.pinned.kept, ...loads.pinned.passing],
    file: [],
  };
  const passing = (name: InstantName): readonly MemoryItem[] =>
    withReserve([...states.instants[name], ...temporaryItems(use.temporaries[name], cluster.device)], cluster.device);
  const capacities = poolsOf(cluster);
  refuseUnknown(Object.keys(input.arenaBytes), capacities);
  const pools = capacities.map((pool) =>
    poolLedgerOf(
      pool,
      { capacityBytes: pool.capacityBytes, reserveBytes: pool.kind === 'device' ? Math.ceil(run.hbmReserve * pool.capacityBytes) : 0 },
      [...persistent[pool.kind], arena(input.arenaBytes[pool.name] ?? 0)],
      (name) => (pool.kind === 'device' ? passing(name) : []),
      { name: LOAD, items: load[pool.kind], totalBytes: sumBytes(load[pool.kind]) },
    ),
  );
  return { kind: 'memoryLedger', fits: pools.every(({ fits }) => fits), pools };
}

/** What a plan may fill of a pool. */
export function roomBytes({ capacityBytes, reserveBytes }: Pick<PoolLedger, 'capacityBytes' | 'reserveBytes'>): number {
  return capacityBytes - reserveBytes;
}

/** By which a plan fills a pool too much; 0 where it fits. */
export function excessBytes(pool: Pick<PoolLedger, 'peakBytes' | 'capacityBytes' | 'reserveBytes'>): number {
  return Math.max(0, pool.peakBytes - roomBytes(pool));
}

/** The ledger of one pool. Throws a RangeError for a name that is not there. */
export function poolLedger({ pools }: MemoryLedger, name: string): PoolLedger {
  const found = pools.find(({ pool }) => pool === name);
  if (found === undefined) throw new RangeError(`the ledger has no pool ${name}, only ${pools.map(({ pool }) => pool).join(', ')}`);
  return found;
}

/** Everything that is in a pool when it is fullest. */
export function peakItems({ persistent, instants, load, peakInstant }: PoolLedger): readonly MemoryItem[] {
  if (peakInstant === LOAD) return load.items;
  return [...persistent, ...(instants.find(({ name }) => name === peakInstant)?.items ?? [])];
}

function refuseUnknown(names: readonly string[], pools: readonly NamedPool[]): void {
  const unknown = names.find((name) => !pools.some((pool) => pool.name === name));
  if (unknown !== undefined) throw new RangeError(`an arena is in pool ${unknown}, which the cluster does not have`);
}

function arena(bytes: number): MemoryItem {
  return { name: 'arena', bytes, provenance: 'exact', note: 'buffers at addresses the plan assigns' };
}

/**
 * Ops of one stream make their temporaries one after the other. On a GPU the caching allocator keeps blocks by stream, so those of
 * different streams add up; on the CPU one thread runs all ops, so only the largest counts.
 */
function temporaryItems(temporaries: readonly Temporary[], device: ClusterSpec['device']): readonly MemoryItem[] {
  const sorted = temporaries.toSorted((a, b) => b.bytes - a.bytes);
  const counted = device === 'cuda' ? sorted : sorted.slice(0, 1);
  return counted.map(({ section, stream, bytes }) =>
    derived(
      `temporaries of ${section}${stream === 'compute' ? '' : ` on ${stream}`}`,
      bytes,
      `the largest op of the instant on ${stream}, by formula`,
    ),
  );
}

function withReserve(items: readonly MemoryItem[], device: ClusterSpec['device']): readonly MemoryItem[] {
  const bytes = Math.ceil(ALLOCATOR_RESERVE * sumBytes(items));
  if (device === 'cpu' || bytes === 0) return items;
  return [
    ...items,
    { name: 'allocator reserve', bytes, provenance: 'assumed', note: `${ALLOCATOR_RESERVE * 100}% of what comes and goes` },
  ];
}

function poolLedgerOf(
  { name, kind }: NamedPool,
  room: Pick<PoolLedger, 'capacityBytes' | 'reserveBytes'>,
  persistent: readonly MemoryItem[],
  itemsOf: (instant: InstantName) => readonly MemoryItem[],
  load: MemoryInstant,
): PoolLedger {
  const base = sumBytes(persistent);
  const instants = INSTANTS.map((instant): MemoryInstant => {
    const items = itemsOf(instant);
    return { name: instant, items, totalBytes: base + sumBytes(items) };
  });
  const peak = [...instants, load].reduce((best, next) => (next.totalBytes > best.totalBytes ? next : best));
  return {
    pool: name,
    kind,
    ...room,
    persistent: nonEmpty(persistent),
    instants,
    load,
    peakBytes: peak.totalBytes,
    peakInstant: peak.name,
    fits: peak.totalBytes <= roomBytes(room),
  };
}
