/** What a plan needs of each memory pool: persistent items and the largest of a few named instants. */
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { INSTANTS, type InstantName, type MemoryItem } from './items.js';
import { modelStates } from './modelStates.js';

export { INSTANTS, type InstantName, type MemoryItem } from './items.js';

/** What is there only at one instant of the step, beside the persistent items. */
export interface MemoryInstant {
  readonly name: InstantName;
  readonly items: readonly MemoryItem[];
  /** Persistent bytes plus these items. */
  readonly totalBytes: number;
}

export interface PoolLedger {
  readonly pool: 'hbm' | 'host';
  readonly capacityBytes: number;
  readonly persistent: readonly MemoryItem[];
  readonly instants: readonly MemoryInstant[];
  readonly peakBytes: number;
  readonly peakInstant: InstantName;
  readonly fits: boolean;
}

export interface MemoryLedger {
  readonly kind: 'memoryLedger';
  readonly fits: boolean;
  readonly hbm: PoolLedger;
  readonly host: PoolLedger;
}

/** Sections of the schedule by the instant they run in. */
const SECTION_INSTANTS: Readonly<Record<string, InstantName>> = {
  embedForward: 'embed',
  layerForward: 'layerForward',
  lossForwardBackward: 'loss',
  layerBackward: 'layerBackward',
  embedBackward: 'gradientReduce',
  stepEnd: 'optimizerStep',
};

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
  /** Bytes of the two arenas, as laid out. */
  readonly arenas: { readonly hbm: number; readonly host: number };
  /** Largest scratchBytes of each section's ops. */
  readonly scratch: Readonly<Partial<Record<string, number>>>;
}

export function buildLedger(input: LedgerInput): MemoryLedger {
  const { model, run, cluster, deepspeed, parameters, arenas } = input;
  const states = modelStates({
    parameters,
    run,
    deepspeed,
    numLayers: model.numLayers,
    tieWordEmbeddings: model.tieWordEmbeddings,
    numRanks: cluster.numRanks,
  });
  const overheads = cluster.overheads.map(({ name, bytes, provenance, source }) => ({ name, bytes, provenance, note: source }));
  const hbm = pool('hbm', cluster.hbmBytes, [...overheads, ...states.hbm, arena(arenas.hbm)], (name) =>
    withReserve([...states.instants[name], ...scratchItems(name, input.scratch)], cluster.device),
  );
  const host = pool('host', cluster.hostBytes, [...states.host, arena(arenas.host)], () => []);
  return { kind: 'memoryLedger', fits: hbm.fits && host.fits, hbm, host };
}

function arena(bytes: number): MemoryItem {
  return { name: 'arena', bytes, provenance: 'exact', note: 'buffers at addresses the plan assigns' };
}

function scratchItems(instant: InstantName, scratch: LedgerInput['scratch']): readonly MemoryItem[] {
  return Object.entries(scratch)
    .filter(([section, bytes]) => SECTION_INSTANTS[section] === instant && bytes !== undefined && bytes > 0)
    .map(([section, bytes]) => ({
      name: `temporaries of ${section}`,
      bytes: bytes as number,
      provenance: 'derived',
      note: 'the largest op of the section, by formula',
    }));
}

function withReserve(items: readonly MemoryItem[], device: ClusterSpec['device']): readonly MemoryItem[] {
  const bytes = Math.ceil(ALLOCATOR_RESERVE * sum(items));
  if (device === 'cpu' || bytes === 0) return items;
  return [
    ...items,
    { name: 'allocator reserve', bytes, provenance: 'assumed', note: `${ALLOCATOR_RESERVE * 100}% of what comes and goes` },
  ];
}

function pool(
  name: PoolLedger['pool'],
  capacityBytes: number,
  persistent: readonly MemoryItem[],
  itemsOf: (instant: InstantName) => readonly MemoryItem[],
): PoolLedger {
  const base = sum(persistent);
  const instants = INSTANTS.map((instant) => {
    const items = itemsOf(instant);
    return { name: instant, items, totalBytes: base + sum(items) };
  });
  const peak = instants.reduce((best, next) => (next.totalBytes > best.totalBytes ? next : best));
  return {
    pool: name,
    capacityBytes,
    persistent: persistent.filter(({ bytes }) => bytes > 0),
    instants,
    peakBytes: peak.totalBytes,
    peakInstant: peak.name,
    fits: peak.totalBytes <= capacityBytes,
  };
}

function sum(items: readonly MemoryItem[]): number {
  return items.reduce((total, { bytes }) => total + bytes, 0);
}
