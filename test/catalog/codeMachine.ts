/**
 * Runs a model's code on one row of numbers modulo a prime, so that results are exact, and refuses what the worker could not do: to
 * read what is not there or was freed, to give a name twice, to leave a value behind. Activations are squares, angles fixed numbers. Values
 * whose memory a result may take are gone once it has.
 */
import type { Steps } from '../../src/catalog/model/instantiate.js';
import { takenBy } from '../../src/catalog/model/reuse.js';
import type { Code, Instruction, Step } from '../../src/spec/modelCode.js';

export const PRIME = 10_007;
export type Row = number[];

const PRODUCT_OF = (a: Row, b: Row): Row => a.map((one, i) => (one * (b[i] ?? 0)) % PRIME);
const SUM_OF = (a: Row, b: Row): Row => a.map((one, i) => (one + (b[i] ?? 0)) % PRIME);

/** Numbers that belong to a name. */
export function numbersOf(name: string, length: number): Row {
  let state = Buffer.from(name).reduce((hash, byte) => (hash * 31 + byte) % PRIME, 7);
  return Array.from({ length }, () => {
    state = (state * 5003 + 11) % PRIME;
    return state;
  });
}

export function dot(a: Row, b: Row): number {
  return PRODUCT_OF(a, b).reduce((sum, one) => (sum + one) % PRIME, 0);
}

function times(matrix: Row, x: Row): Row {
  return Array.from({ length: matrix.length / x.length }, (_, i) => dot(matrix.slice(i * x.length, (i + 1) * x.length), x));
}

function timesTransposed(matrix: Row, y: Row): Row {
  const width = matrix.length / y.length;
  return Array.from({ length: width }, (_, j) => y.reduce((sum, one, i) => (sum + one * (matrix[i * width + j] ?? 0)) % PRIME, 0));
}

/** Where the elements of a slice stand in what it is cut from. */
function places({ groups, each, start, end }: Step['attributes']): readonly number[] {
  const inGroup = Array.from({ length: Number(end) - Number(start) }, (_, i) => Number(start) + i);
  return Array.from({ length: Number(groups) }, (_, group) => inGroup.map((i) => group * Number(each) + i)).flat();
}

export class Machine {
  readonly views: ReadonlyMap<string, Row>;
  readonly weightGradients = new Map<string, Row>();
  private readonly values = new Map<string, Row>();
  private readonly given = new Set<string>();

  /** `views` by their names without `@`. A cast is the view itself, as it is in fp32. */
  constructor(views: Readonly<Record<string, Row>>) {
    this.views = new Map(Object.entries(views).map(([name, row]) => [`@${name}`, [...row]]));
  }

  run({ instructions }: Code): this {
    for (const one of instructions) {
      const taken = takenBy(one).map((name) => this.read(name));
      this.execute(one);
      for (const row of taken) row.fill(0);
      for (const name of one.frees) if (!this.values.delete(name)) throw new Error(`${one.op} frees ${name}, which is not there`);
    }
    if (this.values.size > 0) throw new Error(`left behind: ${[...this.values.keys()].join(', ')}`);
    return this;
  }

  read(name: string): Row {
    const row = this.values.get(name) ?? this.views.get(name);
    if (row === undefined) throw new Error(`${name} is not there${this.given.has(name) ? ' any more' : ''}`);
    return row;
  }

  private execute(one: Instruction): void {
    const rows = one.reads.map((name) => this.read(name));
    const [a = [], b = [], c = []] = rows;
    const [weight] = one.weights;
    switch (one.op) {
      case 'store':
        this.change(one, () => [...a]);
        break;
      case 'addTo':
        this.change(one, (row) => SUM_OF(row, a));
        break;
      case 'cast':
        this.write(one, [a]);
        break;
      case 'sliceBwd': {
        const where = places(one.attributes);
        if (one.into === undefined)
          this.write(one, [Array.from({ length: Number(one.attributes.groups) * Number(one.attributes.each) }, () => 0)]);
        this.change({ ...one, into: one.into ?? one.writes[0] ?? '' }, (row) =>
          row.map((x, i) => (x + (a[where.indexOf(i)] ?? 0)) % PRIME),
        );
        break;
      }
      case 'linearBwd': {
        const name = weight?.name ?? '';
        const outer = a.flatMap((dy) => b.map((x) => (dy * x) % PRIME));
        this.weightGradients.set(name, SUM_OF(outer, this.weightGradients.get(name) ?? []));
        this.write(one, one.attributes.skip0 === true ? [] : [timesTransposed(numbersOf(name, a.length * b.length), a)]);
        break;
      }
      case 'multiplyBwd':
        this.write(
          one,
          [c, b].filter((_, i) => one.attributes[`skip${i}`] !== true).map((other) => PRODUCT_OF(a, other)),
        );
        break;
      case 'activationBwd':
        this.write(one, [PRODUCT_OF(a, SUM_OF(b, b))]);
        break;
      case 'ropeBwd':
        this.write(one, [PRODUCT_OF(a, b)]);
        break;
      default:
        this.write(one, [forward(one, rows).value]);
    }
  }

  private write({ op, writes }: Instruction, rows: readonly Row[]): void {
    if (rows.length !== writes.length) throw new Error(`${op} makes ${rows.length} values, not ${writes.length}`);
    writes.forEach((name, i) => {
      if (this.given.has(name) || this.views.has(name)) throw new Error(`${op} gives ${name} again`);
      this.given.add(name);
      this.values.set(name, rows[i] ?? []);
    });
  }

  private change({ into = '' }: Pick<Instruction, 'into'>, changed: (row: Row) => Row): void {
    const row = this.read(into);
    row.splice(0, row.length, ...changed(row));
  }
}

/** A value and its change along the directions of inputs and weights. */
interface Dual {
  readonly value: Row;
  readonly change: Row;
}

/** The direction in which a weight is moved. */
export function directionOf(name: string, length: number): Row {
  return numbersOf(`direction of ${name}`, length);
}

/** All values of a program, going forward with what they change along the way: the reverse's independent judge. */
export function evaluateSteps({ steps }: Steps, inputs: Readonly<Record<string, Dual>>): ReadonlyMap<string, Dual> {
  const all = new Map(Object.entries(inputs).map(([name, dual]) => [`@${name}`, dual]));
  for (const one of steps) {
    const duals = one.of.map((name) => all.get(name) ?? { value: [], change: [] });
    all.set(
      one.to,
      forward(
        one,
        duals.map(({ value }) => value),
        duals.map(({ change }) => change),
      ),
    );
  }
  return all;
}

type Forward = Pick<Step, 'weights' | 'attributes'> & { readonly op: string };

function forward({ op, weights, attributes }: Forward, [a = [], b = []]: readonly Row[], [da = [], db = []]: readonly Row[] = []): Dual {
  const name = weights[0]?.name ?? '';
  const size = (weights[0]?.shape ?? []).reduce((product, one) => product * one, 1);
  switch (op) {
    case 'linear': {
      const matrix = numbersOf(name, size);
      return { value: times(matrix, a), change: da.length === 0 ? [] : SUM_OF(times(matrix, da), times(directionOf(name, size), a)) };
    }
    case 'add':
      return { value: SUM_OF(a, b), change: SUM_OF(da, db) };
    case 'multiply':
      return { value: PRODUCT_OF(a, b), change: SUM_OF(PRODUCT_OF(da, b), PRODUCT_OF(a, db)) };
    case 'activation':
      return { value: PRODUCT_OF(a, a), change: PRODUCT_OF(SUM_OF(a, a), da) };
    case 'rope':
      return { value: PRODUCT_OF(a, b), change: PRODUCT_OF(da, b) };
    case 'scale': {
      const by = a.map(() => Number(attributes.by));
      return { value: PRODUCT_OF(a, by), change: PRODUCT_OF(da, by) };
    }
    case 'slice':
      return { value: places(attributes).map((i) => a[i] ?? 0), change: places(attributes).map((i) => da[i] ?? 0) };
    case 'angles': {
      const value = numbersOf(`angles of ${a.join()}`, Number(attributes.dims));
      return { value, change: value.map(() => 0) };
    }
    default:
      throw new Error(`no ${op} here`);
  }
}
