/** Stays of tiles in the slots of staging rings: which ops of a section use them. */
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../logical.js';
import { OpenStays } from './openStays.js';
import { HOW, type How, Residency, type Staged } from './residency.js';

/** The stays of an op's refs, in their order; undefined for refs that are not staged, and for an op that has none. */
export type StaysOfOp = Readonly<Record<How, readonly (Residency | undefined)[]>>;

export interface Residencies {
  /** By staged tensor, in order of their first use. */
  readonly byTensor: ReadonlyMap<Staged, readonly Residency[]>;
  readonly staysOfOps: readonly (StaysOfOp | undefined)[];
}

/** Keys of tiles are numbers made of tensor, parameter and tile; there is room for more than a plan may have. */
const MOST_TILES = 2 ** 20;

export function findResidencies({ ops, params }: LogicalSection, staged: ReadonlyMap<string, Staged>): Residencies {
  const openStays = new Map<number, OpenStays>();
  const byTensor = new Map<Staged, Residency[]>([...staged.values()].map((one) => [one, []]));
  const numbers = new Map([...staged.keys()].map((name, number) => [name, number * (params.length + 1)]));
  const isStaged = ({ tensor }: TensorRef): boolean => staged.has(tensor);
  const staysOfOps = ops.map((op, position): StaysOfOp | undefined => {
    if (!op.reads.some(isStaged) && !op.writes.some(isStaged) && !op.accumulates.some(isStaged)) return undefined;
    for (const how of HOW) for (const ref of op[how]) openAt(ref, op)?.close(ref, how, op.turn);
    // Writes last: a chunk that an op both reads and writes must be fetched.
    const reads = visit(op, 'reads', position);
    const accumulates = visit(op, 'accumulates', position);
    return { reads, accumulates, writes: visit(op, 'writes', position) };
  });
  return { byTensor, staysOfOps };

  function visit(op: LogicalOp, how: How, position: number): readonly (Residency | undefined)[] {
    return op[how].map((ref) => {
      const found = staged.get(ref.tensor);
      const open = openAt(ref, op);
      if (found === undefined || open === undefined) return undefined;
      const stay = open.stayOf(op.turn) ?? new Residency(ref, open.tile, op.turn, position, found);
      if (stay.last < 0) byTensor.get(found)?.push(stay);
      stay.use(ref, how, position);
      open.note(ref, how, stay);
      return stay;
    });
  }

  /** The open stays of the tile that a ref names; undefined where its tensor is not staged. */
  function openAt(ref: TensorRef, op: LogicalOp): OpenStays | undefined {
    const found = staged.get(ref.tensor);
    if (found === undefined) return undefined;
    const param = ref.param === undefined ? 0 : 1 + params.findIndex(({ name }) => name === ref.param);
    const tile = ((numbers.get(ref.tensor) ?? 0) + param) * MOST_TILES + tileOf(ref, found.tensor, op);
    const known = openStays.get(tile);
    if (known !== undefined) return known;
    const open = new OpenStays(tile);
    openStays.set(tile, open);
    return open;
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
  const toSlots = (group: How): readonly TensorRef[] => op[group].map((ref, n) => stays[group][n]?.inRing(ref) ?? ref);
  return { ...op, reads: toSlots('reads'), writes: toSlots('writes'), accumulates: toSlots('accumulates') };
}
