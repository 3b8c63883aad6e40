/** Random straight-line programs of the inputs x, o and positions, in the form in which a family writes its own. */
import fc from 'fast-check';
import { instantiate, type Steps } from '../../src/catalog/model/instantiate.js';
import type { WrittenStep } from '../../src/catalog/model/written.js';

export const WIDTH = 4;

const draw = fc.record({
  op: fc.constantFrom('linear', 'add', 'multiply', 'scale', 'activation', 'slice', 'rope'),
  first: fc.nat(99),
  second: fc.nat(99),
  odd: fc.boolean(),
});
type Draw = typeof draw extends fc.Arbitrary<infer T> ? T : never;

export interface RandomProgram {
  readonly steps: Steps;
  /** The last value, which depends on x and on o, and one on the way to it or beside it. */
  readonly y: string;
  readonly other: string;
}

export const anyProgram: fc.Arbitrary<RandomProgram> = fc.array(draw, { minLength: 2, maxLength: 12 }).map(programOf);

function programOf(draws: readonly Draw[]): RandomProgram {
  const written: WrittenStep[] = [{ op: 'angles', of: 'positions', to: 'a', dims: WIDTH }];
  const widths = new Map([
    ['x', WIDTH],
    ['o', WIDTH],
  ]);
  const add = (step: WrittenStep, width: number): void => {
    written.push(step);
    widths.set(step.to, width);
  };
  const pick = (number: number, width?: number): string => {
    const names = [...widths].filter(([, one]) => width === undefined || one === width).map(([name]) => name);
    return names[number % names.length] ?? 'x';
  };
  draws.forEach((one, i) => {
    const of = pick(one.first);
    const width = widths.get(of) ?? 0;
    const step = stepOf(one, of, width, `v${i}`, pick);
    add(step, step.op === 'linear' ? Number(step.width) : step.op === 'slice' ? WIDTH / 2 : width);
  });
  // Both inputs and the last wide value count, by sum or product.
  const [{ odd, second }, last] = [draws[0] as Draw, draws.at(-1) as Draw];
  add({ op: odd ? 'add' : 'multiply', of: [[...widths].findLast(([, width]) => width === WIDTH)?.[0] ?? 'x', 'x'], to: 'z' }, WIDTH);
  add({ op: last.odd ? 'add' : 'multiply', of: ['z', 'o'], to: 'y' }, WIDTH);
  const steps = instantiate(written, new Map(), { x: WIDTH, o: WIDTH, positions: 1 });
  return { steps, y: 'y', other: `v${second % draws.length}` };
}

function stepOf(
  { op, second, odd }: Draw,
  of: string,
  width: number,
  to: string,
  pick: (n: number, width?: number) => string,
): WrittenStep {
  switch (op) {
    case 'add':
    case 'multiply':
      return { op, of: [of, pick(second, width)], to };
    case 'scale':
      return { op, of, to, by: 3 };
    case 'activation':
      return { op, of, to, kind: 'silu' };
    case 'rope':
      return width === WIDTH ? { op, of: [of, 'a'], to, headDim: WIDTH, dims: WIDTH } : { op: 'scale', of, to, by: 5 };
    case 'slice':
      return width === WIDTH ? { op, of, to, groups: 2, start: odd ? 1 : 0, end: odd ? 2 : 1 } : { op: 'scale', of, to, by: 7 };
    default: {
      const outputs = odd ? WIDTH : WIDTH / 2;
      // Of two names, so that steps share weights.
      return { op: 'linear', of, to, weight: `w${outputs}x${width}.${second % 2}`, width: outputs };
    }
  }
}
