/** Stays of tiles in the slots of staging rings: which ops of a section use them. */
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../logical.js';
import { OpenStays } from './openStays.js';
import { HOW, type How, Residency } from './residency.js';
import { type Staged, Tile } from './tile.js';

/** The stays of an op's reads, accumulates and writes, in this order; undefined for refs that are not staged. */
export type StaysOfOp = readonly (Residency | undefined)[];

export interface Residencies {
  /** By staged tensor, in order of their first use. */
  readonly byTensor: ReadonlyMap<Staged, readonly Residency[]>;
  /** Undefined for an op that has none. */
  readonly staysOfOps: readonly (StaysOfOp | undefined)[];
}

/** Keys of tiles are numbers made of parameter and tile; there is room for more than a plan may have. */
const MOST_TILES = 2 ** 20;

export function findResidencies({ ops, params }: LogicalSection, staged: ReadonlyMap<string, Staged>): Residencies {
  const openStays = new Map([...staged.keys()].map((name) => [name, new Map<number, OpenStays>()]));
  const byTensor = new Map<Staged, Residency[]>([...staged.values()].map((one) => [one, []]));
  /** Of the refs of the op at hand, in the order of HOW. */
  const open: (OpenStays | undefined)[] = [];
  const staysOfOps = ops.map((op, position): StaysOfOp | undefined => {
    open.length = 0;
    for (const how of HOW) for (const ref of op[how]) open.push(closeAt(ref, how, op));
    if (open.every((one) => one === undefined)) return undefined;
    // Writes last: a chunk that an op both reads and writes must be fetched.
    const stays: (Residency | undefined)[] = [];
    for (const how of HOW) for (const ref of op[how]) stays.push(visit(open[stays.length], ref, how, op, position));
    // A copy has no room to grow, which for half a million ops is much.
    return stays.slice();
  });
  return { byTensor, staysOfOps };

  /** The open stays of the tile that a ref names, once those that may not go on are closed; undefined where its tensor is not staged. */
  function closeAt(ref: TensorRef, how: How, op: LogicalOp): OpenStays | undefined {
    const byTile = openStays.get(ref.tensor);
    if (byTile === undefined) return undefined;
    const found = openAt(ref, op, byTile);
    found.close(ref, how, op.turn);
    return found;
  }

  function openAt(ref: TensorRef, op: LogicalOp, byTile: Map<number, OpenStays>): OpenStays {
    const one = staged.get(ref.tensor) as Staged;
    const param = ref.param === undefined ? 0 : 1 + params.findIndex(({ name }) => name === ref.param);
    const key = param * MOST_TILES + tileOf(ref, one.tensor, op);
    const known = byTile.get(key) ?? new OpenStays(new Tile(one, key, ref));
    byTile.set(key, known);
    return known;
  }

  function visit(found: OpenStays | undefined, ref: TensorRef, how: How, { turn }: LogicalOp, position: number): Residency | undefined {
    if (found === undefined) return undefined;
    const stay = found.stayOf(turn) ?? new Residency(found.tile, turn, position);
    if (stay.last < 0) byTensor.get(found.tile.staged)?.push(stay);
    stay.use(ref, how, position);
    found.note(ref, how, stay);
    return stay;
  }
}

function tileOf({ tensor, chunks }: TensorRef, { tileChunks }: Tensor, { kind }: LogicalOp): number {
  const tile = Math.floor(chunks.start / tileChunks);
  if (chunks.end > (tile + 1) * tileChunks)
    throw new RangeError(`${kind} uses chunks ${chunks.start}..${chunks.end} of ${tensor}, which is staged ${tileChunks} at a time`);
  return tile;
}

/** The op on the slots that its chunks stay in. */
export function redirect(op: LogicalOp, stays: StaysOfOp | undefined): LogicalOp {
  if (stays === undefined) return op;
  let next = 0;
  const toSlots = (refs: readonly TensorRef[]): readonly TensorRef[] => {
    const first = next;
    next += refs.length;
    return refs.some((_, n) => stays[first + n] !== undefined) ? refs.map((ref, n) => stays[first + n]?.redirected(ref) ?? ref) : refs;
  };
  // In the order of HOW.
  return { ...op, reads: toSlots(op.reads), accumulates: toSlots(op.accumulates), writes: toSlots(op.writes) };
}
