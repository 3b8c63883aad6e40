/**
 * Ops that documents leave out, in plans for packing: whatever of them is left out in a micro-step, what the others read has been written,
 * and nothing that the others write is lost. An op with keys before its queries runs where the document of its first query begins before
 * the end of those keys: of two for the same queries the one with the later end runs wherever the other does.
 *
 * In every section, cell by cell of the views' rows: who reads what such an op has written wholly runs only where it does; a merge runs
 * wherever the attention that it merges does; and what is brought from a place, changed and taken back there is taken back wherever it is
 * changed, and there alone. All others of such an op leave what was there before, which is whole in any case.
 */
import { mayBeHidden } from '../schedule/documents.js';
import type { Access, Op } from '../schedule/op.js';
import type { Context } from './context.js';
import type { FlatSection } from './flat.js';
import { atOp } from './text.js';

export function checkLeftOut(flat: FlatSection, context: Context): void {
  if (!flat.section.ops.some(mayBeHidden)) return;
  new Replay(flat, context).run();
}

/** What may be missing in a cell: the op that has filled it, and those that have added to it since. */
interface Cell {
  readonly filledBy: Op | undefined;
  readonly from: string | undefined;
  readonly addedBy: readonly Op[];
}

const WHOLE: Cell = { filledBy: undefined, from: undefined, addedBy: [] };

class Replay {
  private readonly flat: FlatSection;
  private readonly context: Context;
  private readonly cells = new Map<string, Cell>();
  /** Rows of a cell, by buffer: the largest number that all views are cut at multiples of. */
  private readonly rows = new Map<number, number>();

  constructor(flat: FlatSection, context: Context) {
    this.flat = flat;
    this.context = context;
    const { views } = flat;
    for (let view = 0; view < views.size; view++) {
      const buffer = views.buffer[view] as number;
      this.rows.set(buffer, divisor(divisor(this.rows.get(buffer) ?? 0, views.start[view] as number), views.end[view] as number));
    }
  }

  run(): void {
    for (const op of this.flat.section.ops) {
      if (this.context.violations.isFull) return;
      const problem = this.problemOf(op);
      if (problem !== undefined) this.report(op, problem);
      this.apply(op);
    }
    for (const [key, { filledBy }] of this.cells) {
      if (filledBy !== undefined && this.isStep(key)) this.report(filledBy, 'may be left out, and other calls read what it writes');
    }
  }

  private problemOf(op: Op): string | undefined {
    for (const access of [...op.reads, ...op.accumulates]) {
      for (const key of this.keysOf(access)) {
        const { filledBy, addedBy } = this.cells.get(key) ?? WHOLE;
        if (filledBy !== undefined && !runsWherever(filledBy, op))
          return `may read what op ${filledBy.id} has not written, which may be left out`;
        if (filledBy?.kind === 'attn' && !runsWherever(op, filledBy))
          return `may be left out where op ${filledBy.id}, which it merges, is not`;
        const lost = op.kind === 'copy' ? addedBy.find((one) => !runsWherever(op, one)) : undefined;
        if (lost !== undefined) return `may be left out where op ${lost.id} is not, and lose what that adds`;
      }
    }
    return undefined;
  }

  private apply(op: Op): void {
    for (const access of op.accumulates) {
      for (const key of this.keysOf(access)) {
        const cell = this.cells.get(key) ?? WHOLE;
        this.cells.set(key, { ...cell, addedBy: withLatest(cell.addedBy, op) });
      }
    }
    for (const [i, access] of op.writes.entries()) {
      const sources = op.kind === 'copy' ? this.keysOf(op.reads[i] as Access) : [];
      for (const [n, key] of this.keysOf(access).entries()) {
        const source = sources[n];
        if (!mayBeHidden(op)) this.cells.delete(key);
        else if (source === undefined || !this.returns(op, source, key)) this.cells.set(key, { filledBy: op, from: source, addedBy: [] });
      }
    }
  }

  /** Whether a copy takes back what another that runs where it does has brought from there. */
  private returns(op: Op, source: string, home: string): boolean {
    const { filledBy, from } = this.cells.get(source) ?? WHOLE;
    return from === home && filledBy !== undefined && runsWherever(filledBy, op) && runsWherever(op, filledBy);
  }

  private keysOf({ buffer, param, index, rows }: Access): readonly string[] {
    const size = this.rows.get(buffer) ?? 1;
    const count = (rows.end - rows.start) / size;
    return Array.from({ length: count }, (_, i) => `${buffer}/${param}/${index}/${rows.start / size + i}`);
  }

  private isStep(key: string): boolean {
    return this.context.input.buffers[Number.parseInt(key, 10)]?.scope === 'step';
  }

  private report({ id }: Op, problem: string): void {
    this.context.violations.add(atOp(this.flat, id, problem, this.context));
  }
}

/** Whether `one` runs in every micro-step in which `other` does. */
function runsWherever(one: Op, other: Op): boolean {
  if (!mayBeHidden(one)) return true;
  return mayBeHidden(other) && one.tokens.start === other.tokens.start && endOf(one) >= endOf(other);
}

function endOf({ kv }: Op): number {
  return kv?.end ?? 0;
}

/** Of ops for the same queries the one that runs wherever the others do is enough. */
function withLatest(ops: readonly Op[], op: Op): readonly Op[] {
  return ops.some((one) => runsWherever(one, op)) ? ops : [...ops.filter((one) => !runsWherever(op, one)), op];
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}
