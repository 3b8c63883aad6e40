/** Which earlier ops of its section an op conflicts with: they touch the same rows of an instance, and one of the two changes them. */
import { AccessNumbers } from '../accessNumbers.js';
import type { Access, Op, Range } from '../op.js';

type Views = Pick<Op, 'reads' | 'writes' | 'accumulates'>;

/**
 * Takes the ops of a section in order. Rows of an instance are cut wherever one of the section's views begins or ends, so that a view is
 * some pieces, one after the other, and what matters of a piece's earlier uses is a few numbers.
 */
export class EarlierUses {
  private readonly ops: readonly Views[];
  private readonly streams: Uint8Array;
  private readonly numStreams: number;
  /** Views of all ops: of each its reads, writes and accumulates. */
  private readonly opViews: Int32Array;
  private readonly pieces: Pieces;
  /** By piece the last op that changed it, and by piece and stream the last that has read it since; -1 for none. */
  private readonly lastChange: Int32Array;
  private readonly lastRead: Int32Array;
  /** Of the op at hand. */
  private readonly found: number[] = [];
  private id = -1;
  private nextView = 0;

  constructor(ops: readonly Views[], streams: Uint8Array, numStreams: number) {
    const numbers = new AccessNumbers();
    this.ops = ops;
    this.streams = streams;
    this.numStreams = numStreams;
    this.opViews = viewsOf(ops, numbers);
    this.pieces = piecesOf(numbers.distinct);
    this.lastChange = new Int32Array(this.pieces.total).fill(-1);
    this.lastRead = new Int32Array(this.pieces.total * numStreams).fill(-1);
  }

  /**
   * Ids, some more than once, for the caller to read before it asks again; those of the op's own stream are left out where that is
   * easy.
   */
  conflictsOfNext(): readonly number[] {
    this.id += 1;
    this.found.length = 0;
    const { reads, writes, accumulates } = this.ops[this.id] as Views;
    const firstChange = this.nextView + reads.length;
    const end = firstChange + writes.length + accumulates.length;
    for (; this.nextView < end; this.nextView++) {
      const view = this.opViews[this.nextView] as number;
      if (this.nextView < firstChange) this.read(view);
      else this.change(view);
    }
    return this.found;
  }

  private read(view: number): void {
    const stream = this.streams[this.id] as number;
    const end = this.pieces.ends[view] as number;
    for (let piece = this.pieces.starts[view] as number; piece < end; piece++) {
      this.note(this.lastChange[piece] as number);
      this.lastRead[piece * this.numStreams + stream] = this.id;
    }
  }

  private change(view: number): void {
    const end = this.pieces.ends[view] as number;
    for (let piece = this.pieces.starts[view] as number; piece < end; piece++) {
      this.note(this.lastChange[piece] as number);
      const first = piece * this.numStreams;
      for (let at = first; at < first + this.numStreams; at++) {
        this.note(this.lastRead[at] as number);
        this.lastRead[at] = -1;
      }
      this.lastChange[piece] = this.id;
    }
  }

  /** Ops of one stream are in order; what was found just before is found for most pieces of a view. */
  private note(op: number): void {
    if (op >= 0 && this.streams[op] !== this.streams[this.id] && op !== this.found[this.found.length - 1]) this.found.push(op);
  }
}

function viewsOf(ops: readonly Views[], numbers: AccessNumbers): Int32Array {
  const views = new Int32Array(
    ops.reduce((sum, { reads, writes, accumulates }) => sum + reads.length + writes.length + accumulates.length, 0),
  );
  let next = 0;
  const add = (accesses: readonly Access[]): void => {
    for (let i = 0; i < accesses.length; i++) views[next++] = numbers.numberOf(accesses[i] as Access);
  };
  for (const { reads, writes, accumulates } of ops) {
    add(reads);
    add(writes);
    add(accumulates);
  }
  return views;
}

/** Pieces of all instances, numbered in the order of their rows: view v is pieces [starts[v], ends[v]). */
interface Pieces {
  readonly total: number;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

function piecesOf(views: readonly Access[]): Pieces {
  const starts = new Int32Array(views.length);
  const ends = new Int32Array(views.length);
  let total = 0;
  for (const members of byInstance(views)) {
    const rows = members.map((view) => (views[view] as Access).rows);
    const cuts = cutsOf(rows);
    const numbers = new Map(cuts.map((row, i) => [row, total + i]));
    for (const [i, view] of members.entries()) {
      starts[view] = numbers.get((rows[i] as Range).start) as number;
      ends[view] = numbers.get((rows[i] as Range).end) as number;
    }
    total += cuts.length - 1;
  }
  return { total, starts, ends };
}

function byInstance(views: readonly Access[]): Iterable<readonly number[]> {
  const found = new Map<string, number[]>();
  for (const [view, { buffer, param, index }] of views.entries()) {
    const key = `${buffer}/${param}/${index}`;
    const known = found.get(key);
    if (known === undefined) found.set(key, [view]);
    else known.push(view);
  }
  return found.values();
}

/** Rows where a range begins or ends, in order. */
function cutsOf(rows: readonly Range[]): readonly number[] {
  return [...new Set(rows.flatMap(({ start, end }) => [start, end]))].sort((a, b) => a - b);
}
