/** What a released program has in each pool, in the ledger of a plan: named items of every instant that may be its peak. */
import { poolsOf } from '../../catalog/pools.js';
import { together } from '../../memory/allocator.js';
import { communicatorItems } from '../../memory/communicators.js';
import { derived, type InstantItem, type MemoryItem, nonEmpty, sumBytes } from '../../memory/items.js';
import { type InstantName, LOAD, type MemoryLedger, type PoolLedger, roomBytes } from '../../memory/ledger.js';
import { modelStates } from '../../memory/modelStates.js';
import type { ReleasedOptions } from '../../spec/releasedPrograms.js';
import type { PoolKind } from '../../spec/pools.js';
import { checkpointBytes, hiddenBytes, WIDE } from './costs.js';
import type { ReleasedSetting } from './setting.js';

export interface States {
  readonly device: readonly MemoryItem[];
  readonly pinned: readonly MemoryItem[];
  readonly instants: (name: InstantName) => readonly InstantItem[];
}

/** Of the model dtype, `rows` hidden rows wide unless said otherwise. */
export interface Held {
  readonly states: States;
  /** The moments of a step that may be its peak; several may be of one instant, of which the largest counts. */
  readonly moments: readonly { readonly name: InstantName; readonly items: readonly MemoryItem[] }[];
  /** There all the time. */
  readonly device?: readonly MemoryItem[];
  readonly pinned?: readonly MemoryItem[];
  /** Of what comes and goes, by which the allocator's blocks are more; 0 with expandable segments. */
  readonly fragmentation: number;
}

export function releasedLedger(setting: ReleasedSetting, held: Held): MemoryLedger {
  const { cluster, run } = setting;
  const overheads = [
    ...cluster.overheads.map(({ name, bytes, provenance, source }) => ({ name, bytes, provenance, note: source })),
    ...communicatorItems(cluster, run, numCommunicators(setting)),
  ];
  const persistent: Readonly<Record<PoolKind, readonly MemoryItem[]>> = {
    device: [...overheads, ...held.states.device, ...(held.device ?? [])],
    pinned: [...held.states.pinned, ...(held.pinned ?? [])],
    file: [],
  };
  const statesOf = (name: InstantName, pinned: boolean): readonly MemoryItem[] =>
    together(
      held.states.instants(name).filter((item) => (item.pinned ?? false) === pinned),
      cluster.device,
    );
  const moments = held.moments.map(({ name, items }) => ({ name, items: withFragments([...statesOf(name, false), ...items], held) }));
  const pools = poolsOf(cluster)
    .filter(({ kind }) => kind !== 'file')
    .map(({ name: pool, kind, capacityBytes }) =>
      poolOf(
        { pool, kind, capacityBytes, reserveBytes: kind === 'device' ? Math.ceil(run.hbmReserve * capacityBytes) : 0 },
        nonEmpty(persistent[kind]),
        kind === 'device' ? moments : moments.map(({ name }) => ({ name, items: statesOf(name, true) })),
      ),
    );
  return { kind: 'memoryLedger', fits: pools.every(({ fits }) => fits), pools };
}

/**
 * Not ours: the default group, in which ZeRO-3 gathers and reduces, in other stages DeepSpeed's copy of it (`_clone_world_group`,
 * utils/groups.py), and a group of the sequence's own.
 */
function numCommunicators({ cluster, run }: ReleasedSetting): number {
  if (cluster.numRanks === 1) return 0;
  return 1 + (run.zeroStage < 3 ? 1 : 0) + (run.sequenceParallelSize > 1 ? 1 : 0);
}

/** DeepSpeed's states by stage; with weights on the host a rank's share of them is there. */
export function deepSpeedStates({ model, run, cluster, deepspeed, parameters, options }: ReleasedSetting): States {
  const { device, pinned, instants } = modelStates({
    parameters,
    classOf: model.code.classOf,
    tieWordEmbeddings: model.tieWordEmbeddings,
    run,
    numRanks: cluster.numRanks,
    device: cluster.device,
    deepspeed,
    extraLayers: 0,
  });
  const isShard = ({ name }: MemoryItem): boolean => options.offloadWeights && name === 'weight shard';
  return {
    device: device.filter((item) => !isShard(item)),
    pinned: [...pinned, ...device.filter(isShard)],
    instants: (name) => instants[name],
  };
}

/** Items that every program has, by how many there are of each. */
export function items(setting: ReleasedSetting): {
  readonly hidden: (name: string, count: number, note: string) => MemoryItem;
  readonly queries: (name: string, count: number, note: string) => MemoryItem;
  readonly keyValues: (name: string, count: number, note: string) => MemoryItem;
  readonly lse: () => MemoryItem;
} {
  const { tokens, sizes } = setting;
  const [query, keyValue] = [tokens * sizes.w * sizes.ownQ, tokens * sizes.w * sizes.ownKv];
  const times = (count: number, what: string, note: string): string => `${count} * ${what}${note === '' ? '' : `: ${note}`}`;
  return {
    hidden: (name, count, note) => derived(name, count * hiddenBytes(setting), times(count, '[tokens / ranks, hidden size]', note)),
    queries: (name, count, note) => derived(name, count * query, times(count, '[tokens, own heads * head dim]', note)),
    keyValues: (name, count, note) => derived(name, count * keyValue, times(count, '[tokens, own kv heads * head dim]', note)),
    lse: () => derived('lse', WIDE * tokens * sizes.ownHeads, '4 B * tokens * own heads'),
  };
}

/** Where the program keeps layer inputs: on the device, or in ordinary memory of the host. */
export function checkpoints(setting: ReleasedSetting, place: Exclude<ReleasedOptions['checkpoints'], 'none'>): readonly MemoryItem[] {
  if (setting.options.checkpoints !== place) return [];
  return [derived('checkpoints of all layers', checkpointBytes(setting), 'layers * [tokens / ranks, hidden size]')];
}

/** torch's caching host allocator has blocks of powers of two. */
export function pinnedBlock(bytes: number): number {
  return bytes === 0 ? 0 : 2 ** Math.ceil(Math.log2(bytes));
}

function withFragments(passing: readonly MemoryItem[], { fragmentation }: Held): readonly MemoryItem[] {
  const bytes = Math.ceil(fragmentation * sumBytes(passing));
  if (bytes === 0) return nonEmpty(passing);
  return [
    ...nonEmpty(passing),
    {
      name: 'fragments',
      bytes,
      provenance: 'assumed',
      note: `${fragmentation * 100}% of what comes and goes, the median of published runs`,
    },
  ];
}

function poolOf(
  pool: Pick<PoolLedger, 'pool' | 'kind' | 'capacityBytes' | 'reserveBytes'>,
  persistent: readonly MemoryItem[],
  moments: readonly { readonly name: InstantName; readonly items: readonly MemoryItem[] }[],
): PoolLedger {
  const base = sumBytes(persistent);
  const totals = moments.map(({ name, items: passing }) => ({ name, items: passing, totalBytes: base + sumBytes(passing) }));
  const names = [...new Set(totals.map(({ name }) => name))];
  const instants = names.flatMap((name) =>
    totals
      .filter((one) => one.name === name)
      .toSorted((a, b) => b.totalBytes - a.totalBytes)
      .slice(0, 1),
  );
  const [peak] = instants.toSorted((a, b) => b.totalBytes - a.totalBytes);
  const peakBytes = peak?.totalBytes ?? base;
  return {
    ...pool,
    persistent,
    instants,
    load: { name: LOAD, items: [], totalBytes: 0 },
    peakBytes,
    peakInstant: peak?.name ?? LOAD,
    fits: peakBytes <= roomBytes(pool),
  };
}
