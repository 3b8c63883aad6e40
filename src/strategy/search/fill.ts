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
  /** Products of a layer that its reverse needs. */
  readonly internals: number;
}

/** Seconds more for a layer than where its output is kept on the host beside a checkpoint of its own. */
export interface LayerCosts {
  /** Its attention runs again: by layer, since a window leaves less of it. */
  readonly recompute: readonly number[];
  /** Its input is rebuilt from its predecessor's kept output. */
  readonly rebuild: number;
  /** Its input is rebuilt by running its predecessor again, whose output is kept from then on; where it is not, `recompute` comes on top. */
  readonly rerun: number;
  /** Its output is kept in a file. */
  readonly file: number;
  /** Its products are formed again. */
  readonly internals: number;
}

/** A pool to keep things in, and the bytes that are free there. */
export interface Room {
  readonly pool: string;
  readonly isFile: boolean;
  readonly isDevice: boolean;
  readonly bytes: number;
}

/** Layers that share a checkpoint. */
export interface FilledSegment {
  readonly length: number;
  readonly checkpoints: string;
  /** A pool, or RECOMPUTE. */
  readonly attentionOutput: string;
  /** Where recomputed outputs stay once the segment is rebuilt; absent: nowhere. */
  readonly rebuiltOutput?: string;
  /** Where products are kept; absent: nowhere. */
  readonly internals?: string;
}

export interface Filling {
  readonly segments: readonly FilledSegment[];
  /** What it costs beside keeping everything. */
  readonly seconds: number;
  /** Bytes of each room that are still free. */
  readonly free: readonly number[];
}

/** Lengths of segments worth trying. */
const LENGTHS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];

/** The first layers kept, in segments of one length, the others recomputed in segments of another. */
interface Option {
  readonly numKept: number;
  readonly kept: number;
  readonly rerun: number;
  /** Checkpoints, and the states inside the longest segment. */
  readonly numStates: number;
  /** Not more than it costs. */
  readonly seconds: number;
}

/** What may be kept of a model's layers, whatever room there is. */
export interface Options {
  readonly costs: LayerCosts;
  /** Layers in the order in which they are kept where each has a checkpoint of its own: by what they cost. Else the first come first. */
  readonly dearest: readonly number[];
  /** Layers whose products may be kept, at most. */
  readonly mostInternals: number;
  /** The fastest first. */
  readonly all: readonly Option[];
}

export function optionsOf(costs: LayerCosts, mostInternals: number, segmentLayers?: number): Options {
  const numLayers = costs.recompute.length;
  const inOrder = [...costs.recompute.keys()];
  const dearest = inOrder.toSorted((a, b) => (costs.recompute[b] ?? 0) - (costs.recompute[a] ?? 0) || a - b);
  const [alone, together] = [dearest, inOrder].map((layers) => secondsFrom(layers, costs));
  const lengths = segmentLayers === undefined ? [...LENGTHS.filter((length) => length < numLayers), numLayers] : [segmentLayers];
  const options: Option[] = [];
  for (const kept of lengths) {
    for (const rerun of lengths) {
      for (let numKept = numLayers; numKept >= 0; numKept--) {
        if ((numKept === 0 && kept !== lengths[0]) || (numKept === numLayers && rerun !== lengths[0])) continue;
        if (segmentLayers !== undefined && numKept < numLayers && numKept % segmentLayers !== 0) continue;
        const recomputed = (isAlone(kept, rerun) ? alone : together)?.[numKept] ?? 0;
        const seconds = recomputed + rebuiltSeconds(numKept, kept, rerun, costs);
        options.push({ numKept, kept, rerun, numStates: leastStates(numLayers, numKept, kept, rerun), seconds });
      }
    }
  }
  return { costs, dearest, mostInternals, all: options.sort((a, b) => a.seconds - b.seconds) };
}

/**
 * The fastest filling of `rooms`, which are tried in their order; where outputs are recomputed, of `recomputing`, which is asked for if nothing
 * faster fits. Undefined where nothing fits, as in rooms that lack bytes.
 */
export function fill(
  { costs, dearest, mostInternals, all }: Options,
  bytes: KeptBytes,
  rooms: readonly Room[],
  recomputing: () => readonly Room[] = () => rooms,
): Filling | undefined {
  const numLayers = costs.recompute.length;
  const inRooms = (which: readonly Room[]) => ({ which, most: lacks(which) ? -1 : which.reduce((sum, room) => sum + room.bytes, 0) });
  const whole = inRooms(rooms);
  let recomputed: typeof whole | undefined;
  let best: Filling | undefined;
  let atMost = Number.POSITIVE_INFINITY;
  for (const { numKept, kept, rerun, numStates, seconds } of all) {
    if (seconds >= atMost) break;
    const need = numStates * bytes.checkpoint + numKept * bytes.output;
    if (numKept < numLayers) recomputed ??= inRooms(recomputing());
    const { which, most } = numKept < numLayers && recomputed !== undefined ? recomputed : whole;
    if (need > most) continue;
    const found = place(cutsOf(numKept, kept, rerun, dearest), bytes, which, mostInternals);
    if (found === undefined) continue;
    const { segments, free } = found;
    const inFiles = segments.reduce((sum, one) => sum + (isIn(one.attentionOutput, which) ? one.length : 0), 0);
    const formed = mostInternals - segments.filter(({ internals }) => internals !== undefined).length;
    const total = seconds + inFiles * costs.file + numFormedAgain(segments) * mean(costs.recompute) + formed * costs.internals;
    if (total < atMost) [best, atMost] = [{ segments, seconds: total, free }, total];
  }
  return best;
}

function lacks(rooms: readonly Room[]): boolean {
  return rooms.some(({ bytes }) => bytes < 0);
}

function leastStates(numLayers: number, numKept: number, kept: number, rerun: number): number {
  const numRerun = numLayers - numKept;
  const numCheckpoints = Math.ceil(numKept / kept) + Math.ceil(numRerun / rerun);
  const longest = Math.max(Math.min(kept, numKept), Math.min(rerun, numRerun));
  return numCheckpoints + longest - 1;
}

/** Layers whose recomputed output is formed a third time. */
function numFormedAgain(segments: readonly FilledSegment[]): number {
  const again = segments.filter((one) => one.attentionOutput === RECOMPUTE && one.rebuiltOutput === undefined);
  return again.reduce((sum, { length }) => sum + length - 1, 0);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

function isIn(pool: string, rooms: readonly Room[]): boolean {
  return rooms.some((room) => room.isFile && room.pool === pool);
}

/** By number of layers that are kept, in this order, the seconds that the others are recomputed. */
function secondsFrom(layers: readonly number[], { recompute }: LayerCosts): readonly number[] {
  const seconds = [0];
  for (const layer of layers.toReversed()) seconds.unshift((seconds[0] ?? 0) + (recompute[layer] ?? 0));
  return seconds;
}

/** Each layer has a checkpoint of its own. */
function isAlone(kept: number, rerun: number): boolean {
  return kept === 1 && rerun === 1;
}

function rebuiltSeconds(numKept: number, kept: number, rerun: number, costs: LayerCosts): number {
  const numRerun = costs.recompute.length - numKept;
  const rebuilt = numKept - Math.ceil(numKept / kept);
  const again = numRerun - Math.ceil(numRerun / rerun);
  return rebuilt * costs.rebuild + again * costs.rerun;
}

interface Cut {
  readonly length: number;
  readonly isKept: boolean;
}

function cutsOf(numKept: number, kept: number, rerun: number, dearest: readonly number[]): readonly Cut[] {
  const numLayers = dearest.length;
  if (!isAlone(kept, rerun)) return [...cut(numKept, kept, true), ...cut(numLayers - numKept, rerun, false)];
  const isKept = new Set(dearest.slice(0, numKept));
  return Array.from({ length: numLayers }, (_, layer) => ({ length: 1, isKept: isKept.has(layer) }));
}

function cut(numLayers: number, length: number, isKept: boolean): readonly Cut[] {
  const numSegments = Math.ceil(numLayers / length);
  return Array.from({ length: numSegments }, (_, i) => ({ length: Math.min(length, numLayers - i * length), isKept }));
}

type Placed = Pick<Filling, 'segments' | 'free'>;

/** Each checkpoint and output in the first pool with room; undefined where one finds none. Products in what is left on the device. */
function place(cuts: readonly Cut[], bytes: KeptBytes, rooms: readonly Room[], mostInternals: number): Placed | undefined {
  const checkpoints = placeCheckpoints(cuts, bytes, rooms);
  if (checkpoints === undefined) return undefined;
  const free = rooms.map((room, at) => room.bytes - instancesIn(at, room, cuts, checkpoints) * bytes.checkpoint);
  const segments: FilledSegment[] = [];
  for (const [i, { length, isKept }] of cuts.entries()) {
    const need = length * bytes.output;
    const at = isKept ? free.findIndex((left) => left >= need) : -1;
    if (isKept && at < 0) return undefined;
    if (isKept) free[at] = (free[at] as number) - need;
    const attentionOutput = isKept ? (rooms[at] as Room).pool : RECOMPUTE;
    segments.push({ length, checkpoints: (rooms[checkpoints[i] as number] as Room).pool, attentionOutput });
  }
  const isAlone = segments.every(({ length }) => length === 1);
  return isAlone ? withInternals({ segments, free }, bytes, rooms, mostInternals) : withRebuilt({ segments, free }, bytes, rooms);
}

/** Products of the first layers: of as many as there is room for. */
function withInternals({ segments, free }: Placed, bytes: KeptBytes, rooms: readonly Room[], most: number): Placed {
  const device = rooms.findIndex(({ isDevice }) => isDevice);
  const internals = rooms[device]?.pool;
  if (internals === undefined || most === 0) return { segments, free };
  const count = Math.max(0, Math.min(most, segments.length, Math.floor((free[device] ?? 0) / bytes.internals)));
  return {
    segments: segments.map((one, i) => (i < count ? { ...one, internals } : one)),
    free: free.map((left, at) => (at === device ? left - count * bytes.internals : left)),
  };
}

/** Recomputed outputs of a segment that is rebuilt in the first pool with room; one segment is rebuilt at a time. */
function withRebuilt({ segments, free }: Placed, bytes: KeptBytes, rooms: readonly Room[]): Placed {
  const isRebuilt = ({ length, attentionOutput }: FilledSegment): boolean => length > 1 && attentionOutput === RECOMPUTE;
  const longest = Math.max(0, ...segments.filter(isRebuilt).map(({ length }) => length));
  const need = (longest - 1) * bytes.output;
  const found = rooms.findIndex(({ isFile }, at) => !isFile && (free[at] ?? 0) >= need);
  const rebuiltOutput = rooms[found]?.pool;
  if (longest === 0 || rebuiltOutput === undefined) return { segments, free };
  return {
    segments: segments.map((one) => (isRebuilt(one) ? { ...one, rebuiltOutput } : one)),
    free: free.map((left, at) => (at === found ? left - need : left)),
  };
}

/** Number of the room of each segment's checkpoint: as many as fit in the first, the next ones in the second. */
function placeCheckpoints(cuts: readonly Cut[], bytes: KeptBytes, rooms: readonly Room[]): readonly number[] | undefined {
  const checkpoints: number[] = [];
  for (const [at, room] of rooms.entries()) {
    const most = Math.floor(room.bytes / bytes.checkpoint);
    const first = checkpoints.length;
    let longest = 0;
    for (const [i, { length }] of cuts.slice(first).entries()) {
      longest = Math.max(longest, length);
      if (numInstances(i + 1, longest, first + i + 1 === cuts.length, room) > most) break;
      checkpoints.push(at);
    }
  }
  return checkpoints.length === cuts.length ? checkpoints : undefined;
}

function instancesIn(at: number, room: Room, cuts: readonly Cut[], checkpoints: readonly number[]): number {
  const inRoom = cuts.filter((_, i) => checkpoints[i] === at);
  if (inRoom.length === 0) return 0;
  return numInstances(inRoom.length, Math.max(...inRoom.map(({ length }) => length)), checkpoints.at(-1) === at, room);
}

/**
 * A checkpoint for each segment, the states inside the longest, and what the last layer there hands on: to the next room, or on the device
 * to the head. See `hiddenSlots`.
 */
function numInstances(numSegments: number, longest: number, isLast: boolean, { isDevice }: Room): number {
  return numSegments + longest - (isLast && !isDevice ? 1 : 0);
}
