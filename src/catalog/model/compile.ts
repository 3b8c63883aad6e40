/**
 * Instructions of steps: forward as they stand, and the reverse, which first forms again what it needs. What no result needs is
 * left out, values are freed after their last use, and a gradient that nobody else holds is added to in place.
 */
import type { Code, Instruction, InstructionName, Step } from '../../spec/modelCode.js';
import { PRIMITIVES } from './primitives.js';
import { withReuse } from './reuse.js';
import { type Steps, viewName } from './instantiate.js';

type Draft = Omit<Instruction, 'frees'>;

/** The steps that `results` (a value to the view it is stored in) need, each stored as soon as it is there. */
export function compileForward({ steps, widths }: Steps, results: Readonly<Record<string, string>>, kept: Kept = NOTHING): Code {
  const needed = neededSteps(steps, [...Object.keys(results), ...kept.starts.keys()]);
  const drafts = needed.flatMap((step): readonly Draft[] => {
    const view = results[step.to];
    const start = kept.starts.get(step.to);
    return [
      forward(step),
      ...(view === undefined ? [] : [store(step.to, viewName(view))]),
      ...(start === undefined ? [] : [{ ...store(step.to, KEPT), attributes: { start } }]),
    ];
  });
  const views = Object.fromEntries(Object.entries(results).map(([value, view]) => [viewName(view), widths[value] ?? 0]));
  return finish(drafts, { ...widths, ...views, [KEPT]: kept.width });
}

/** Values that forward keeps for the reverse, side by side in one view: the first column of each, and the width of all. */
export interface Kept {
  readonly starts: ReadonlyMap<string, number>;
  readonly width: number;
}

const KEPT = viewName('kept');
const NOTHING: Kept = { starts: new Map(), width: 0 };

/** Results of products that the reverse would form again; what is element-wise is formed from them. */
export function productsAgain(steps: Steps, reverse: Reverse): Kept {
  const starts = new Map<string, number>();
  let width = 0;
  for (const { op, writes } of compileReverse(steps, reverse).instructions) {
    const [value = ''] = writes;
    if (op !== 'linear') continue;
    starts.set(value, width);
    width += steps.widths[value] ?? 0;
  }
  return { starts, width };
}

export interface Reverse {
  /** View of the gradient of each result. `cast`: it may have another dtype than the model. */
  readonly upstream: Readonly<Record<string, string>>;
  readonly cast: boolean;
  /** What the gradient of an input is for: written to a view, or added to it; the view may hold the gradient of a result already. */
  readonly inputs: Readonly<Record<string, { readonly view: string; readonly add: boolean }>>;
  /** View that may be changed in place while it holds a result's gradient. */
  readonly owned?: string;
}

/** Values that are `kept` are not formed again. */
export function compileReverse({ steps, widths }: Steps, reverse: Reverse, kept: Kept = NOTHING): Code {
  return new ReverseWriter(steps, { ...widths, [KEPT]: kept.width }, reverse, kept).write();
}

class ReverseWriter {
  private readonly steps: readonly Step[];
  private readonly reverse: Reverse;
  private readonly widths: Record<string, number>;
  private readonly drafts: Draft[] = [];
  /** Values that hold parts of the gradient of a value. */
  private readonly parts = new Map<string, string[]>();
  /** In how many parts a gradient stands. */
  private readonly holders = new Map<string, number>();
  /** Views of gradients, and their casts, which are the views themselves where dtypes agree. */
  private readonly given = new Set<string>();
  private readonly reached: ReadonlySet<string>;
  private readonly kept: Kept;

  constructor(steps: readonly Step[], widths: Readonly<Record<string, number>>, reverse: Reverse, kept: Kept) {
    this.steps = steps;
    this.kept = kept;
    this.reverse = withViewNames(reverse);
    this.widths = { ...widths };
    this.reached = differentiable(steps, Object.keys(this.reverse.inputs));
  }

  write(): Code {
    for (const [value, view] of Object.entries(this.reverse.upstream)) this.begin(value, view);
    for (const step of this.steps.toReversed()) this.reverseStep(step);
    // The view that holds a result's gradient until now is overwritten last.
    const inputs = Object.entries(this.reverse.inputs).sort(
      ([, a], [, b]) => Number(a.view === this.reverse.owned) - Number(b.view === this.reverse.owned),
    );
    for (const [input, { view, add }] of inputs) this.end(input, view, add);
    const saved = this.drafts.flatMap(({ reads }) => reads);
    const needed = neededSteps(this.steps, saved, this.kept);
    const again = needed.map((step) => {
      const start = this.kept.starts.get(step.to);
      return start === undefined ? forward(step) : load(step, start);
    });
    return finish([...again, ...this.drafts], this.widths);
  }

  private begin(value: string, view: string): void {
    if (!this.reached.has(value)) return;
    this.widths[view] = this.widths[value] ?? 0;
    this.given.add(view);
    if (!this.reverse.cast) {
      this.hold(value, view);
      return;
    }
    const name = `d ${value}`;
    this.given.add(name);
    this.emit('cast', [view], [name]);
    this.widths[name] = this.widths[value] ?? 0;
    this.hold(value, name);
  }

  private end(input: string, view: string, add: boolean): void {
    this.widths[view] = this.widths[input] ?? 0;
    const gradient = this.sum(input);
    if (gradient === undefined) throw new RangeError(`no gradient reaches ${input}`);
    if (gradient === view) return;
    if (add) this.emit('addTo', [gradient], [], view);
    else this.drafts.push(store(gradient, view));
  }

  private reverseStep(step: Step): void {
    const gradient = this.sum(step.to);
    if (gradient === undefined) return;
    this.drop(gradient);
    const { backward } = PRIMITIVES[step.op];
    if (backward === 'pass') {
      for (const input of step.of) this.hold(input, gradient);
      return;
    }
    if (backward === undefined) return;
    if (step.op === 'slice') {
      this.unslice(step, gradient);
      return;
    }
    const inputs = backward.gradients(step);
    const made = inputs.map((input) => (this.reached.has(input) ? this.gradientName(input) : undefined));
    const writes = made.filter((name) => name !== undefined);
    if (writes.length === 0 && !trains(step)) return;
    const skips = made.flatMap((name, i) => (name === undefined ? [[`skip${i}`, true] as const] : []));
    const attributes = { ...step.attributes, ...Object.fromEntries(skips) };
    this.emit(backward.op, [gradient, ...backward.saved(step)], writes, undefined, { ...step, attributes });
    made.forEach((name, i) => {
      if (name !== undefined) this.contribute(inputs[i] ?? '', name);
    });
  }

  /** A slice's gradient goes into that of what it is cut from, which begins as zeros. */
  private unslice(step: Step, gradient: string): void {
    const [input = ''] = step.of;
    const [known] = this.parts.get(input) ?? [];
    if (known !== undefined && this.mayChange(known)) {
      this.emit('sliceBwd', [gradient], [], known, step);
      return;
    }
    const name = this.gradientName(input);
    this.emit('sliceBwd', [gradient], [name], undefined, step);
    this.contribute(input, name);
  }

  private gradientName(input: string): string {
    let name = `d ${input}`;
    while (this.widths[name] !== undefined) name = `${name}'`;
    this.widths[name] = this.widths[input] ?? 0;
    return name;
  }

  private hold(value: string, gradient: string): void {
    if (!this.reached.has(value) && this.reverse.inputs[value] === undefined) return;
    this.parts.set(value, [...(this.parts.get(value) ?? []), gradient]);
    this.holders.set(gradient, (this.holders.get(gradient) ?? 0) + 1);
  }

  private drop(gradient: string): void {
    this.holders.set(gradient, (this.holders.get(gradient) ?? 1) - 1);
  }

  /** Added at once to a part that may change, so that it need not be kept. */
  private contribute(value: string, gradient: string): void {
    const known = (this.parts.get(value) ?? []).find((part) => this.mayChange(part));
    if (known === undefined) this.hold(value, gradient);
    else this.emit('addTo', [gradient], [], known);
  }

  private mayChange(gradient: string): boolean {
    return this.holders.get(gradient) === 1 && (!this.given.has(gradient) || gradient === this.reverse.owned);
  }

  /** The gradient of a value in one piece. */
  private sum(value: string): string | undefined {
    const parts = [...(this.parts.get(value) ?? [])];
    this.parts.delete(value);
    if (parts.length < 2) return parts[0];
    const target = parts.find((part) => this.mayChange(part));
    const others = parts.filter((part) => part !== target);
    for (const part of parts) this.drop(part);
    let total = target;
    for (const part of others) {
      if (total === undefined) total = part;
      else if (total === target) this.emit('addTo', [part], [], total);
      else {
        const name = this.gradientName(value);
        this.emit('add', [total, part], [name]);
        total = name;
      }
    }
    this.holders.set(total as string, 1);
    return total;
  }

  /** `of`: the step that this is the reverse of, whose weights and attributes it has. */
  private emit(
    op: InstructionName,
    reads: readonly string[],
    writes: readonly string[],
    into?: string,
    of: Pick<Step, 'weights' | 'attributes'> = { weights: [], attributes: {} },
  ): void {
    this.drafts.push({ op, reads, writes, ...(into === undefined ? {} : { into }), weights: of.weights, attributes: of.attributes });
  }
}

function withViewNames({ upstream, inputs, owned, cast }: Reverse): Reverse {
  const named = Object.entries(inputs).map(([input, { view, add }]) => [viewName(input), { view: viewName(view), add }] as const);
  return {
    upstream: Object.fromEntries(Object.entries(upstream).map(([value, view]) => [value, viewName(view)])),
    cast,
    inputs: Object.fromEntries(named),
    ...(owned === undefined ? {} : { owned: viewName(owned) }),
  };
}

function forward({ op, of, to, weights, attributes }: Step): Draft {
  return { op, reads: of, writes: [to], weights, attributes };
}

function store(value: string, view: string): Draft {
  return { op: 'store', reads: [value], writes: [], into: view, weights: [], attributes: {} };
}

function load({ to, width }: Step, start: number): Draft {
  return { op: 'load', reads: [KEPT], writes: [to], weights: [], attributes: { start, end: start + width } };
}

/** Steps whose value is among `results`, or needed for one that is and not kept. */
function neededSteps(steps: readonly Step[], results: readonly string[], { starts }: Kept = NOTHING): readonly Step[] {
  const needed = new Set(results);
  for (const { to, of } of steps.toReversed()) if (needed.has(to) && !starts.has(to)) for (const name of of) needed.add(name);
  return steps.filter(({ to }) => needed.has(to));
}

/** Some weight of it does. */
function trains({ weights }: Step): boolean {
  return weights.some(({ frozen }) => frozen !== true);
}

/** Values that depend on one of `inputs` or on a weight that trains, and those inputs themselves. */
function differentiable(steps: readonly Step[], inputs: readonly string[]): ReadonlySet<string> {
  const reached = new Set(inputs);
  for (const step of steps) if (trains(step) || step.of.some((name) => reached.has(name))) reached.add(step.to);
  return reached;
}

/** With what each instruction frees: values that it reads or makes and nothing after it reads. Views are not ours to free. */
function finish(drafts: readonly Draft[], widths: Readonly<Record<string, number>>): Code {
  const made = new Set(drafts.flatMap(({ writes }) => writes));
  const last = new Map<string, number>();
  drafts.forEach(({ reads, writes, into }, i) => {
    for (const name of [...reads, ...writes, ...(into === undefined ? [] : [into])]) if (made.has(name)) last.set(name, i);
  });
  const instructions = drafts.map((draft, i) => ({ ...draft, frees: [...last].filter(([, at]) => at === i).map(([name]) => name) }));
  const used = new Set(drafts.flatMap(({ reads, writes, into }) => [...reads, ...writes, ...(into === undefined ? [] : [into])]));
  return {
    instructions: withReuse(instructions, widths),
    widths: Object.fromEntries(Object.entries(widths).filter(([name]) => used.has(name))),
  };
}
