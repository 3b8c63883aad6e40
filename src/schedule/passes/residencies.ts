/** Stays of tiles in the slots of staging rings: which ops of a section use them. */
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../logical.js';
import { OpenStays } from './openStays.js';
import { type How, Residency } from './residency.js';
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
  /** Of the refs of the op at hand: its reads, accumulates and writes. */
  const open: (OpenStays | undefined)[] = [];
  const staysOfRefs: (Residency | undefined)[] = [];
  for (let position = 0; position < ops.length; position++) {
    const op = ops[position] as LogicalOp;
    open.length = 0;
    closeAll(op.reads, 'reads', op);
    closeAll(op.accumulates, 'accumulates', op);
    closeAll(op.writes, 'writes', op);
    // Writes last: a chunk that an op both reads and writes must be fetched.
    visitAll(op.reads, 'reads', op, position, 0);
    visitAll(op.accumulates, 'accumulates', op, position, op.reads.length);
    visitAll(op.writes, 'writes', op, position, op.reads.length + op.accumulates.length);
  }
  return { byTensor, staysOfRefs };

  function closeAll(refs: readonly TensorRef[], how: How, op: LogicalOp): void {
    for (let n = 0; n < refs.length; n++) open.push(closeAt(refs[n] as TensorRef, how, op));
  }

  function visitAll(refs: readonly TensorRef[], how: How, op: LogicalOp, position: number, first: number): void {
    for (let n = 0; n < refs.length; n++) {
      const found = open[first + n];
      staysOfRefs.push(found === undefined ? undefined : visit(found, refs[n] as TensorRef, how, op, position));
    }
  }

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

  function visit(found: OpenStays, ref: TensorRef, how: How, op: LogicalOp, position: number): Residency {
    const { turn } = op;
    const stay = found.stayOf(turn) ?? new Residency(found.tile, turn, position);
    if (stay.last < 0) byTensor.get(found.tile.staged)?.push(stay);
    stay.use(ref, how, position, op);
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
  const reads = toSlots(op.reads, stays, first);
  const accumulates = toSlots(op.accumulates, stays, first + reads.length);
  const writes = toSlots(op.writes, stays, first + reads.length + accumulates.length);
  const isSame = reads === op.reads && accumulates === op.accumulates && writes === op.writes;
  if (isSame) return op;
  const { kind, tokens, kv, attribute, turn } = op;
  return { kind, tokens, kv, attribute, reads, writes, accumulates, turn };
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
