/** Stays of tiles in the slots of staging rings: which ops of a section use them. */
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../logical.js';
import { OpenStays } from './openStays.js';
import { HOW, type How, Residency } from './residency.js';
import { type Staged, Tile } from './tile.js';

export interface Residencies {
  /** By staged tensor, in order of their first use. */
  readonly byTensor: ReadonlyMap<Staged, readonly Residency[]>;
  /** Of all refs of all ops, of each its reads, accumulates and writes in this order; undefined for refs that are not staged. */
  readonly staysOfRefs: StaysOfRefs;
}

export type StaysOfRefs = readonly (Residency | undefined)[];

/** Keys of tiles are numbers made of parameter and tile; there is room for more than a plan may have. */
const MOST_TILES = 2 ** 20;

export function findResidencies({ ops, params }: LogicalSection, staged: ReadonlyMap<string, Staged>): Residencies {
  const openStays = new Map([...staged.keys()].map((name) => [name, new Map<number, OpenStays>()]));
  const byTensor = new Map<Staged, Residency[]>([...staged.values()].map((one) => [one, []]));
  /** Of the refs of the op at hand, in the order of HOW. */
  const open: (OpenStays | undefined)[] = [];
  const staysOfRefs: (Residency | undefined)[] = [];
  for (const [position, op] of ops.entries()) {
    open.length = 0;
    for (const how of HOW) for (const ref of op[how]) open.push(closeAt(ref, how, op));
    // Writes last: a chunk that an op both reads and writes must be fetched.
    let next = 0;
    for (const how of HOW) for (const ref of op[how]) staysOfRefs.push(visit(open[next++], ref, how, op, position));
  }
  return { byTensor, staysOfRefs };

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
    const known = byTile.get(key);
    if (known !== undefined) return known;
    const found = new OpenStays(new Tile(one, byTile.size, ref));
    byTile.set(key, found);
    return found;
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

/** The op on the slots that its chunks stay in; the stays of its refs begin at `first`. */
export function redirect(op: LogicalOp, stays: StaysOfRefs, first: number): LogicalOp {
  // In the order of HOW.
  const reads = toSlots(op.reads, stays, first);
  const accumulates = toSlots(op.accumulates, stays, first + reads.length);
  const writes = toSlots(op.writes, stays, first + reads.length + accumulates.length);
  const isSame = reads === op.reads && accumulates === op.accumulates && writes === op.writes;
  return isSame ? op : { ...op, reads, accumulates, writes };
}

export function numRefs({ reads, accumulates, writes }: LogicalOp): number {
  return reads.length + accumulates.length + writes.length;
}

function toSlots(refs: readonly TensorRef[], stays: StaysOfRefs, first: number): readonly TensorRef[] {
  for (let n = 0; n < refs.length; n++) {
    if (stays[first + n] !== undefined) return refs.map((ref, i) => stays[first + i]?.redirected(ref) ?? ref);
  }
  return refs;
}
