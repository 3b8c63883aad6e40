/**
 * What of a whole step is kept where, for one frame and number of chunks: attention outputs of as many layers as there is room for, and a
 * checkpoint for one layer or for several. Layers that are kept come first, those that are recomputed last.
 */
import { RECOMPUTE } from '../../spec/strategy.js';

/** Bytes of one instance, by what is kept. */
export interface KeptBytes {
  /** Hidden states of a rank's tokens: a checkpoint. */
  readonly checkpoint: number;
  /** Attention output and lse of a layer. */
  readonly output: number;
}

/** Seconds more for a layer than where its output is kept on the host beside a checkpoint of its own. */
export interface LayerCosts {
  /** Its attention runs again. */
  readonly recompute: number;
  /** Its input is rebuilt from its predecessor's kept output. */
  readonly rebuild: number;
  /** Its input is rebuilt by running its predecessor again. */
  readonly rerun: number;
  /** Its output is kept in a file. */
  readonly file: number;
}

/** A pool to keep things in, and the bytes that are free there. */
export interface Room {
  readonly pool: string;
  readonly isFile: boolean;
  readonly bytes: number;
}

/** Layers that share a checkpoint. */
export interface FilledSegment {
  readonly length: number;
  readonly checkpoints: string;
  /** A pool, or RECOMPUTE. */
  readonly attentionOutput: string;
}

export interface Filling {
  readonly segments: readonly FilledSegment[];
  /** What it costs beside keeping everything. */
  readonly seconds: number;
}

/** Lengths of segments worth trying. */
const LENGTHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];

/** The fastest filling of `rooms`, which are tried in their order; undefined where nothing fits. */
export function fill(
  numLayers: number,
  bytes: KeptBytes,
  costs: LayerCosts,
  rooms: readonly Room[],
  segmentLayers?: number,
): Filling | undefined {
  const lengths = segmentLayers === undefined ? [...LENGTHS.filter((length) => length < numLayers), numLayers] : [segmentLayers];
  let best: Filling | undefined;
  const atMost = (): number => best?.seconds ?? Number.POSITIVE_INFINITY;
  for (const kept of lengths) {
    for (const rerun of lengths) {
      for (let numKept = numLayers; numKept >= 0; numKept--) {
        if ((numKept === 0 && kept !== lengths[0]) || (numKept === numLayers && rerun !== lengths[0])) continue;
        const seconds = secondsOf(numLayers, numKept, kept, rerun, costs);
        if (seconds >= atMost()) continue;
        const found = place([...cut(numKept, kept, true), ...cut(numLayers - numKept, rerun, false)], bytes, rooms);
        if (found === undefined) continue;
        const inFiles = found.reduce((sum, one) => sum + (isIn(one.attentionOutput, rooms) ? one.length : 0), 0);
        const total = seconds + inFiles * costs.file;
        if (total < atMost()) best = { segments: found, seconds: total };
      }
    }
  }
  return best;
}

function isIn(pool: string, rooms: readonly Room[]): boolean {
  return rooms.some((room) => room.isFile && room.pool === pool);
}

function secondsOf(numLayers: number, numKept: number, kept: number, rerun: number, costs: LayerCosts): number {
  const numRerun = numLayers - numKept;
  const rebuilt = numKept - Math.ceil(numKept / kept);
  const again = numRerun - Math.ceil(numRerun / rerun);
  return numRerun * costs.recompute + rebuilt * costs.rebuild + again * costs.rerun;
}

interface Cut {
  readonly length: number;
  readonly isKept: boolean;
}

function cut(numLayers: number, length: number, isKept: boolean): readonly Cut[] {
  const numSegments = Math.ceil(numLayers / length);
  return Array.from({ length: numSegments }, (_, i) => ({ length: Math.min(length, numLayers - i * length), isKept }));
}

/** Each checkpoint and output in the first pool with room; undefined where one finds none. */
function place(cuts: readonly Cut[], bytes: KeptBytes, rooms: readonly Room[]): readonly FilledSegment[] | undefined {
  const free = rooms.map((room) => room.bytes);
  const longest = Math.max(...cuts.map(({ length }) => length));
  const checkpoints = new Map<Cut, number>();
  let next = 0;
  for (const one of cuts) {
    while (next < rooms.length && !takes(next)) next += 1;
    if (next === rooms.length) return undefined;
    checkpoints.set(one, next);
    free[next] = (free[next] ?? 0) - bytes.checkpoint;
  }
  const outputs = new Map<Cut, number>();
  for (const one of cuts) {
    if (!one.isKept) continue;
    const need = one.length * bytes.output;
    const at = free.findIndex((left) => left >= need);
    if (at < 0) return undefined;
    outputs.set(one, at);
    free[at] = (free[at] ?? 0) - need;
  }
  const name = (at: number | undefined): string => (at === undefined ? RECOMPUTE : (rooms[at]?.pool ?? RECOMPUTE));
  return cuts.map((one) => ({ length: one.length, checkpoints: name(checkpoints.get(one)), attentionOutput: name(outputs.get(one)) }));

  /** The first of a pool brings what all segments there share: states inside a segment, the last layer's output, and what crosses to the next pool. */
  function takes(at: number): boolean {
    const isFirst = ![...checkpoints.values()].includes(at);
    const shared = isFirst ? (longest + 1) * bytes.checkpoint : 0;
    if ((free[at] ?? 0) < shared + bytes.checkpoint) return false;
    free[at] = (free[at] ?? 0) - shared;
    return true;
  }
}
