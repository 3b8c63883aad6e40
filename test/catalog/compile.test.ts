/** From steps to instructions: what is left out, how gradients are added, when values go, and that the results are right. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compileForward, compileReverse, type Reverse } from '../../src/catalog/model/compile.js';
import { instantiate, type Steps } from '../../src/catalog/model/instantiate.js';
import { peakBytes } from '../../src/catalog/model/liveness.js';
import type { WrittenStep } from '../../src/catalog/model/written.js';
import type { Code, Instruction } from '../../src/spec/modelCode.js';
import { parseModel } from '../../src/catalog/index.js';
import { LLAMA } from '../spec/inputs.js';
import { directionOf, dot, evaluateSteps, Machine, numbersOf, PRIME } from './codeMachine.js';
import { anyProgram, type RandomProgram, WIDTH } from './randomCode.js';

const llama = parseModel(LLAMA).code;
const [layer] = llama.classes as [(typeof llama.classes)[number]];

const weightsOf = ({ instructions }: Code, op: Instruction['op']): readonly string[] =>
  instructions.filter((one) => one.op === op).flatMap(({ weights }) => weights.map(({ name }) => name.replace(/^.*?(\w+)\.weight$/, '$1')));
const countOf = ({ instructions }: Code, op: Instruction['op']): number => instructions.filter((one) => one.op === op).length;

describe('what no result needs is left out', () => {
  test('of pre: preQ forms no k and v, preKv no q', () => {
    expect(weightsOf(layer.pre, 'linear')).toEqual(['q_proj', 'k_proj', 'v_proj']);
    expect(weightsOf(layer.preQ, 'linear')).toEqual(['q_proj']);
    expect(weightsOf(layer.preKv, 'linear')).toEqual(['k_proj', 'v_proj']);
    expect([layer.pre, layer.preQ, layer.preKv].map((code) => countOf(code, 'rope'))).toEqual([2, 1, 1]);
    expect([layer.pre, layer.preQ, layer.preKv].map((code) => countOf(code, 'store'))).toEqual([3, 1, 2]);
  });

  test('in reverse: what a gradient is made of is formed again, and nothing more', () => {
    expect(weightsOf(layer.postBwd, 'linear')).toEqual(['o_proj', 'gate_proj', 'up_proj']);
    expect(weightsOf(layer.postBwd, 'linearBwd')).toEqual(['down_proj', 'up_proj', 'gate_proj', 'o_proj']);
    expect(countOf(layer.postBwd, 'add')).toBe(1);
    expect(weightsOf(layer.preBwd, 'linear')).toEqual([]);
    expect([countOf(layer.preBwd, 'rmsnorm'), countOf(layer.preBwd, 'rope'), countOf(layer.preBwd, 'ropeBwd')]).toEqual([1, 0, 2]);
    expect(llama.embedBwd.instructions.map(({ op }) => op)).toEqual(['lookupBwd']);
    expect(llama.headBwd.instructions.map(({ op }) => op)).toEqual(['rmsnormBwd', 'store']);
  });

  test('and so is the gradient of an input that nobody asks for, not that of its weight', () => {
    const code = reverseOf([linear('o', 'p'), { op: 'multiply', of: ['x', 'p'], to: 'y' }], { inputs: { x: { view: 'dx', add: false } } });
    expect(linesOf(code)).toEqual(['linear @o -> p', 'multiplyBwd @up @x p -> d @x, d p', 'linearBwd d p @o ->', 'store d @x -> into @dx']);
    expect(code.instructions.map(({ attributes }) => attributes.skip0 ?? false)).toEqual([false, false, true, false]);
  });
});

describe('gradients', () => {
  test('of a value used twice are added, in place of the first', () => {
    expect(linesOf(reverseOf([linear('x', 'a'), linear('x', 'b'), { op: 'multiply', of: ['a', 'b'], to: 'y' }]))).toEqual([
      'linear @x -> a',
      'linear @x -> b',
      'multiplyBwd @up a b -> d a, d b',
      'linearBwd d b @x -> d @x',
      "linearBwd d a @x -> d @x'",
      "addTo d @x' -> into d @x",
      'store d @x -> into @dx',
    ]);
  });

  test('of a value added to itself are its own twice, in a new value, since the view is not ours', () => {
    expect(linesOf(reverseOf([{ op: 'add', of: ['x', 'x'], to: 'y' }]))).toEqual(['add @up @up -> d @x', 'store d @x -> into @dx']);
  });

  test('of slices gather in one value that begins as zeros', () => {
    const half = (start: number, to: string): WrittenStep => ({ op: 'slice', of: 'f', to, groups: 1, start, end: start + 2 });
    expect(linesOf(reverseOf([linear('x', 'f'), half(0, 'a'), half(2, 'b'), { op: 'multiply', of: ['a', 'b'], to: 'y' }]))).toEqual([
      'linear @x -> f',
      'slice f -> a',
      'slice f -> b',
      'multiplyBwd @up a b -> d a, d b',
      'sliceBwd d b -> d f',
      'sliceBwd d a -> into d f',
      'linearBwd d f @x -> d @x',
      'store d @x -> into @dx',
    ]);
  });

  test('that never reach an input are an error', () => {
    expect(() => reverseOf([linear('o', 'y')])).toThrow(/no gradient reaches @x/);
  });
});

describe('a view that is owned', () => {
  const inPlace = { upstream: { y: 'dx' }, owned: 'dx', inputs: { o: { view: 'do', add: false }, x: { view: 'dx', add: false } } } as const;
  const residual: readonly WrittenStep[] = [linear('o', 'p'), { op: 'add', of: ['x', 'p'], to: 'y' }];

  test('stays as it is where it is the gradient already', () => {
    expect(linesOf(reverseOf(residual, inPlace))).toEqual(['linearBwd @dx @o -> d @o', 'store d @o -> into @do']);
  });

  test('is added to once nobody else holds it, and only where it is owned', () => {
    const both = [
      ...residual.slice(0, 1),
      linear('x', 'f'),
      { op: 'multiply', of: ['f', 'p'], to: 'm' },
      { op: 'add', of: ['x', 'm'], to: 'y' },
    ];
    const owned = linesOf(reverseOf(both as WrittenStep[], inPlace));
    expect(owned.slice(2)).toEqual([
      'multiplyBwd @dx f p -> d f, d p',
      'linearBwd d f @x -> d @x',
      'addTo d @x -> into @dx',
      'linearBwd d p @o -> d @o',
      'store d @o -> into @do',
    ]);
    const { owned: _, ...others } = inPlace;
    expect(linesOf(reverseOf(both as WrittenStep[], others))).toContain('addTo @dx -> into d @x');
  });

  test('is whole until the other who holds it has read it', () => {
    const sum: readonly WrittenStep[] = [linear('x', 'f'), { op: 'add', of: ['x', 'f'], to: 's' }, { op: 'add', of: ['s', 'o'], to: 'y' }];
    expect(linesOf(reverseOf(sum, inPlace))).toEqual([
      'linearBwd @dx @x -> d @x',
      'store @dx -> into @do',
      'addTo @dx -> into d @x',
      'store d @x -> into @dx',
    ]);
  });

  test('never is one that is cast: of the same dtype the cast is the view', () => {
    const shared: readonly WrittenStep[] = [linear('x', 'y'), linear('y', 'k')];
    const code = reverseOf(shared, { upstream: { y: 'dq', k: 'dk' }, cast: true, inputs: { x: { view: 'dx', add: true } } });
    const casts = code.instructions.filter(({ op }) => op === 'cast').flatMap(({ writes }) => writes);
    expect(casts).toEqual(['d y', 'd k']);
    expect(code.instructions.filter(({ into }) => casts.includes(into ?? ''))).toEqual([]);
    expect(linesOf(code).at(-1)).toBe('addTo d @x -> into @dx');
  });
});

const ROWS = { x: numbersOf('x', WIDTH), o: numbersOf('o', WIDTH), positions: [3] };
const DIRECTIONS = { x: numbersOf('along x', WIDTH), o: numbersOf('along o', WIDTH), positions: [0] };
const POST = { cast: false, inputs: { o: { view: 'do', add: false }, x: { view: 'dx', add: false } }, owned: 'dx' } as const;
const PRE = { cast: true, inputs: { x: { view: 'dx', add: true } } } as const;

const postReverse = ({ steps, y }: RandomProgram): Code => compileReverse(steps, { ...POST, upstream: { [y]: 'dx' } });
const preReverse = ({ steps, y, other }: RandomProgram): Code => compileReverse(steps, { ...PRE, upstream: { [y]: 'dq', [other]: 'dk' } });
const allCodes = (program: RandomProgram): readonly Code[] => {
  const { steps, y, other } = program;
  return [
    compileForward(steps, { [y]: 'y', [other]: 'k' }),
    compileForward(steps, { [other]: 'k' }),
    postReverse(program),
    preReverse(program),
  ];
};

describe('of random programs', () => {
  test('forward code has the results of the steps', () => {
    check(({ steps, y, other }) => {
      const all = evaluateSteps(steps, dualInputs(['x', 'o']));
      const machine = new Machine({ ...ROWS, y: [], k: [] }).run(compileForward(steps, { [y]: 'y', [other]: 'k' }));
      expect([machine.read('@y'), machine.read('@k')]).toEqual([all.get(y)?.value, all.get(other)?.value]);
    });
  });

  test('reverse code, in place, has the gradients of inputs and weights', () => {
    check((program) => {
      const upstream = numbersOf('upstream', WIDTH);
      const machine = new Machine({ ...ROWS, dx: upstream, do: numbersOf('rubbish', WIDTH) }).run(postReverse(program));
      const change = evaluateSteps(program.steps, dualInputs(['x', 'o'])).get(program.y)?.change ?? [];
      const found = dot(machine.read('@dx'), DIRECTIONS.x) + dot(machine.read('@do'), DIRECTIONS.o) + alongWeights(machine);
      expect(found % PRIME).toBe(dot(upstream, change));
    });
  });

  test('reverse code of two results adds to what is there and leaves the gradients that it reads alone', () => {
    check((program) => {
      const { steps, y, other } = program;
      const [dq, dk] = [numbersOf('dq', WIDTH), numbersOf('dk', steps.widths[other] ?? 0)];
      const before = numbersOf('before', WIDTH);
      const machine = new Machine({ ...ROWS, dq, dk, dx: before }).run(preReverse(program));
      const all = evaluateSteps(steps, dualInputs(['x']));
      const found = dot(machine.read('@dx'), DIRECTIONS.x) + PRIME - dot(before, DIRECTIONS.x) + alongWeights(machine);
      expect(found % PRIME).toBe((dot(dq, all.get(y)?.change ?? []) + dot(dk, all.get(other)?.change ?? [])) % PRIME);
      expect([machine.read('@dq'), machine.read('@dk')]).toEqual([dq, dk]);
    });
  });

  test('each value is used, freed once where it is used last, and never read after', () => {
    check((program) => {
      for (const { instructions, widths } of allCodes(program)) {
        const made = instructions.flatMap(({ writes }) => writes);
        expect(instructions.flatMap(({ frees }) => frees).toSorted()).toEqual(made.toSorted());
        expect(new Set(made).size).toBe(made.length);
        for (const name of made) {
          const last = lastUse(instructions, name);
          expect(instructions[last]?.frees).toContain(name);
          expect(instructions[last]?.writes, `${name} is made for nobody`).not.toContain(name);
        }
        expect(Object.keys(widths).toSorted()).toEqual([...new Set(instructions.flatMap(namesOf))].toSorted());
      }
    });
  });

  test.each([2, 4])('with %i bytes an element, the peak is the most that is alive at once', (w) => {
    check((program) => {
      for (const code of allCodes(program)) expect(peakBytes(code, 3, { w })).toBe(mostAlive(code, 3, w));
    });
  });
});

function check(property: (program: RandomProgram) => void): void {
  fc.assert(fc.property(anyProgram, property), { numRuns: 300 });
}

/** Inputs move along their directions where they are named, and stay where they are otherwise. */
function dualInputs(moving: readonly string[]): Parameters<typeof evaluateSteps>[1] {
  return Object.fromEntries(
    (['x', 'o', 'positions'] as const).map((name) => {
      const change = moving.includes(name) ? DIRECTIONS[name] : ROWS[name].map(() => 0);
      return [name, { value: ROWS[name], change }];
    }),
  );
}

function alongWeights({ weightGradients }: Machine): number {
  return [...weightGradients].reduce((sum, [name, gradient]) => sum + dot(gradient, directionOf(name, gradient.length)), 0);
}

function namesOf({ reads, writes, into }: Instruction): readonly string[] {
  return [...reads, ...writes, ...(into === undefined ? [] : [into])];
}

function lastUse(instructions: readonly Instruction[], name: string): number {
  return instructions.findLastIndex((one) => namesOf(one).includes(name));
}

/** By the lifetimes of values, whatever the code says it frees. */
function mostAlive({ instructions, widths }: Code, rows: number, w: number): number {
  const bytes = ({ op }: Instruction, name: string): number => (op === 'cast' && w >= 4 ? 0 : rows * w * (widths[name] ?? 0));
  const lives = instructions.flatMap((one, from) =>
    one.writes.map((name) => ({ from, to: lastUse(instructions, name), bytes: bytes(one, name) })),
  );
  const inside = (one: Instruction): number => {
    const made = one.writes.reduce((sum, name) => sum + bytes(one, name), 0);
    const [read = ''] = one.reads;
    if (one.op === 'multiplyBwd') return one.writes.length * rows * w * (widths[read] ?? 0);
    if (one.op === 'linearBwd' && w < 4) return Math.max(made, w * (one.weights[0]?.shape ?? []).reduce((a, b) => a * b, 1));
    if (one.op.startsWith('rope')) return 1.5 * made;
    return one.op === 'angles' ? made + 4 * rows * WIDTH : made;
  };
  const sums = instructions.map((one, i) =>
    lives.filter(({ from, to }) => from < i && i <= to).reduce((sum, life) => sum + life.bytes, inside(one)),
  );
  return Math.max(...sums);
}

/** `x` to `y` with weights of their own. */
function linear(of: string, to: string): WrittenStep {
  return { op: 'linear', of, to, weight: `${of}_${to}`, width: WIDTH };
}

function reverseOf(written: readonly WrittenStep[], more: Partial<Reverse> = {}): Code {
  const steps: Steps = instantiate(written, new Map(), { x: WIDTH, o: WIDTH });
  return compileReverse(steps, { upstream: { y: 'up' }, cast: false, inputs: { x: { view: 'dx', add: false } }, ...more });
}

function linesOf({ instructions }: Code): readonly string[] {
  return instructions.map(({ op, reads, writes, into }) =>
    `${op} ${reads.join(' ')} -> ${into === undefined ? writes.join(', ') : `into ${into}`}`.trim(),
  );
}
