/** What a plan needs of each memory pool: persistent items and the largest of a few named instants. */
import { poolsOf } from '../catalog/pools.js';
import type { NamedPool, PoolKind } from '../spec/pools.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { temporaryItems, together, withReserve } from './allocator.js';
import { communicatorItems, numCommunicators } from './communicators.js';
import { devicePageTables, hostItems, processItem } from './hostTerms.js';
import {
  EVALUATION_INSTANTS,
  type EvaluationInstant,
  INSTANTS,
  type InstantItem,
  type InstantName,
  LOAD,
  type MemoryItem,
  nonEmpty,
  sumBytes,
} from './items.js';
import type { ModelStates } from './modelStates.js';
import { type ScheduleFree, scheduleFree } from './scheduleFree.js';
import type { ScheduleUse, Temporary } from './scheduleUse.js';

export { EVALUATION_INSTANTS, INSTANTS, type InstantName, LOAD, type MemoryItem } from './items.js';
export { scheduleUse, type ScheduleUse } from './scheduleUse.js';

/** An instant with arenas. */
type StepInstant = InstantName | EvaluationInstant;

/** What is there only at one instant of the step, beside the persistent items; at the load it is everything. */
export interface MemoryInstant {
  readonly name: StepInstant | typeof LOAD;
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
  const { model, run, cluster, deepspeed, parameters } = input;
  const { device } = cluster;
  const overheads = [
    ...cluster.overheads.map(({ name, bytes, provenance, source }) => ({ name, bytes, provenance, note: source })),
    ...communicatorItems(cluster, run, numCommunicators(cluster, run, deepspeed)),
  ];
  const sizes = {
    parameters,
    run,
    deepspeed,
    device,
    classOf: model.code.classOf,
    tieWordEmbeddings: model.tieWordEmbeddings,
    numRanks: cluster.numRanks,
    extraLayers: input.use.extraLayers,
  };
  const capacities = poolsOf(cluster);
  refuseUnknown(Object.keys(input.arenaBytes), capacities);
  const { states, load } = scheduleFree(sizes, cluster.hbmBytes - sumBytes(overheads));
  const parts = { ...partsOf(input, states, overheads), load: loadOf(load, cluster, overheads) };
  const pools = capacities.map((pool) =>
    poolLedgerOf(
      pool,
      { capacityBytes: pool.capacityBytes, reserveBytes: pool.kind === 'device' ? Math.ceil(run.hbmReserve * pool.capacityBytes) : 0 },
      [...parts.persistent[pool.kind], arena(input.arenaBytes[pool.name] ?? 0)],
      parts.instants[pool.kind],
      { name: LOAD, items: parts.load[pool.kind], totalBytes: sumBytes(parts.load[pool.kind]) },
    ),
  );
  return { kind: 'memoryLedger', fits: pools.every(({ fits }) => fits), pools };
}

type ByKind<T> = Readonly<Record<PoolKind, T>>;

/** What an instant adds. */
interface NamedItems {
  readonly name: StepInstant;
  readonly items: readonly MemoryItem[];
}

interface Parts {
  readonly persistent: ByKind<readonly MemoryItem[]>;
  readonly instants: ByKind<readonly NamedItems[]>;
}

/**
 * What pools have beside their arenas. On a CPU PyTorch allocates what is offloaded like everything else of its own: beside the arena of the
 * device's pool.
 */
function partsOf({ cluster, arenaBytes, use }: LedgerInput, states: ModelStates, overheads: readonly MemoryItem[]): Parts {
  const { device } = cluster;
  const isOneMemory = device === 'cpu';
  const onDevice = isOneMemory ? [...states.device, ...states.pinned] : states.device;
  const pinnedArena = sumOf(poolsOf(cluster).map(({ name, kind }) => (kind === 'pinned' ? (arenaBytes[name] ?? 0) : 0)));
  const passing = ({ states: all, temporaries }: AtInstant): readonly MemoryItem[] => {
    const items = all.filter(({ pinned }) => isOneMemory || pinned !== true);
    return withReserve(together([...items, ...temporaryItems(temporaries, device)], device), onDevice, device);
  };
  const passingPinned = ({ states: all }: AtInstant): readonly MemoryItem[] =>
    isOneMemory
      ? []
      : together(
          all.filter(({ pinned }) => pinned === true),
          device,
        );
  const at = instantsOf(states, use);
  const named = (itemsOf: (one: AtInstant) => readonly MemoryItem[]): readonly NamedItems[] =>
    at.map((one) => ({ name: one.name, items: itemsOf(one) }));
  return {
    persistent: {
      device: [...overheads, ...devicePageTables(device, pinnedArena), ...onDevice],
      pinned: [...hostItems(device, pinnedArena), ...(isOneMemory ? [] : states.pinned)],
      file: states.file,
    },
    instants: { device: named(passing), pinned: named(passingPinned), file: named(() => []) },
  };
}

interface AtInstant {
  readonly name: StepInstant;
  readonly states: readonly InstantItem[];
  readonly temporaries: readonly Temporary[];
}

/** Of a step, and of an evaluation where there is one. */
function instantsOf(states: ModelStates, { temporaries, evaluation }: ScheduleUse): readonly AtInstant[] {
  return [
    ...INSTANTS.map((name) => ({ name, states: states.instants[name], temporaries: temporaries[name] })),
    ...(evaluation === undefined
      ? []
      : EVALUATION_INSTANTS.map((name) => ({ name, states: states.evaluation[name], temporaries: evaluation[name] }))),
  ];
}

function loadOf(
  { device, pinned }: ScheduleFree['load'],
  cluster: ClusterSpec,
  overheads: readonly MemoryItem[],
): ByKind<readonly MemoryItem[]> {
  return {
    device: [...overheads, ...withReserve([...device.kept, ...device.passing], [], cluster.device)],
    pinned: [...(cluster.device === 'cpu' ? [] : [processItem()]), ...pinned.kept, ...pinned.passing],
    file: [],
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
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

function poolLedgerOf(
  { name, kind }: NamedPool,
  room: Pick<PoolLedger, 'capacityBytes' | 'reserveBytes'>,
  persistent: readonly MemoryItem[],
  passing: readonly NamedItems[],
  load: MemoryInstant,
): PoolLedger {
  const base = sumBytes(persistent);
  const instants = passing.map(({ name: instant, items }): MemoryInstant => ({ name: instant, items, totalBytes: base + sumBytes(items) }));
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
