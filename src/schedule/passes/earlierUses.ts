/** Which earlier ops of its section an op conflicts with: they touch the same rows of an instance, and one of the two changes them. */
import { AccessNumbers } from '../accessNumbers.js';
import type { Access, Op, Range } from '../op.js';

type Views = Pick<Op, 'reads' | 'writes' | 'accumulates'>;

/** A use that still matters, of a view that other views overlap. */
interface Use {
  readonly view: number;
  readonly op: number;
  readonly changes: boolean;
}

/** Takes the ops of a section in order. Nearly all views overlap none but themselves, and their uses are numbers in columns. */
export class EarlierUses {
  private readonly ops: readonly Views[];
  private readonly streams: Uint8Array;
  private readonly numStreams: number;
  private readonly rows: readonly Range[];
  /** Views of all ops: of each its reads, writes and accumulates. */
  private readonly opViews: Int32Array;
  /** By view the uses of its instance, where some other view of that overlaps it. */
  private readonly overlapping: readonly (Use[] | undefined)[];
  /** By view the last op that changed it, and by view and stream the last that has read it since; -1 for none. */
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
    this.rows = numbers.distinct.map(({ rows }) => rows);
    this.overlapping = overlappingUses(numbers.distinct);
    this.lastChange = new Int32Array(this.rows.length).fill(-1);
    this.lastRead = new Int32Array(this.rows.length * numStreams).fill(-1);
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
      const changes = this.nextView >= firstChange;
      const uses = this.overlapping[view];
      if (uses !== undefined) this.meetOverlapping(view, uses, changes);
      else if (changes) this.change(view);
      else this.read(view);
    }
    return this.found;
  }

  private read(view: number): void {
    this.note(this.lastChange[view] as number);
    this.lastRead[view * this.numStreams + (this.streams[this.id] as number)] = this.id;
  }

  private change(view: number): void {
    this.note(this.lastChange[view] as number);
    const first = view * this.numStreams;
    for (let at = first; at < first + this.numStreams; at++) {
      this.note(this.lastRead[at] as number);
      this.lastRead[at] = -1;
    }
    this.lastChange[view] = this.id;
  }

  /** Ops of one stream are in order. */
  private note(op: number): void {
    if (op >= 0 && this.streams[op] !== this.streams[this.id]) this.found.push(op);
  }

  private meetOverlapping(view: number, uses: Use[], changes: boolean): void {
    const { start, end } = this.rows[view] as Range;
    let kept = 0;
    for (const use of uses) {
      const rows = this.rows[use.view] as Range;
      if ((changes || use.changes) && rows.start < end && start < rows.end) this.note(use.op);
      if (!this.isReplaced(use, view, changes)) uses[kept++] = use;
    }
    uses[kept++] = { view, op: this.id, changes };
    if (kept < uses.length) uses.length = kept;
  }

  /** A change of all its rows makes an earlier use irrelevant; so does a later read of the same rows on the same stream. */
  private isReplaced(earlier: Use, view: number, changes: boolean): boolean {
    if (!changes) return !earlier.changes && earlier.view === view && this.streams[earlier.op] === this.streams[this.id];
    const [now, before] = [this.rows[view] as Range, this.rows[earlier.view] as Range];
    return now.start <= before.start && before.end <= now.end;
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

/** By view one list for all views of an instance; undefined where all of them lie apart. */
function overlappingUses(views: readonly Access[]): readonly (Use[] | undefined)[] {
  const byInstance = new Map<string, number[]>();
  for (const [view, { buffer, param, index }] of views.entries()) {
    const key = `${buffer}/${param}/${index}`;
    const known = byInstance.get(key);
    if (known === undefined) byInstance.set(key, [view]);
    else known.push(view);
  }
  const uses: (Use[] | undefined)[] = views.map(() => undefined);
  for (const members of byInstance.values()) {
    const rows = members.map((view) => (views[view] as Access).rows).sort((a, b) => a.start - b.start);
    if (rows.every(({ end }, i) => end <= (rows[i + 1]?.start ?? end))) continue;
    const shared: Use[] = [];
    for (const view of members) uses[view] = shared;
  }
  return uses;
}
