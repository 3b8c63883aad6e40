import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LogicalOp, LogicalSchedule, LogicalSection, Tensor, TensorRef } from '../../src/schedule/logical.js';
import { moveData } from '../../src/schedule/passes/moveData.js';
import { tensor } from '../../src/schedule/policies/context.js';
import { PLACES } from './context.js';
import { Memory, run } from './interpreter.js';

const ROWS = 3;
const ARGS = new Map([
  ['a', 2],
  ['b', 0],
]);
type Group = 'reads' | 'writes' | 'accumulates';

describe('moveData', () => {
  it('random sections: the staged section computes, on the device alone, what the logical one does', () => {
    fc.assert(
      fc.property(randomSection(), fc.integer({ min: 1, max: 4 }), (schedule, prefetchDepth) => {
        const moved = moveData(schedule, PLACES, prefetchDepth);
        expect(results(moved, schedule.tensors)).toEqual(results(schedule, schedule.tensors));
        expect(misplaced(moved)).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });

  it('a deeper prefetch needs more slots, never more copies', () => {
    fc.assert(
      fc.property(randomSection(), (schedule) => {
        const copies = [1, 2, 3].map((depth) => moveData(schedule, PLACES, depth).sections.flatMap(copiesOf).length);
        expect(new Set(copies).size).toBe(1);
      }),
    );
  });

  it('issues a copy as soon as its slot is free', () => {
    const uses = [0, 1, 2, 3].map((chunk) => op(chunk, chunk, { reads: [{ tensor: 'k@host', chunks: { start: chunk, end: chunk + 1 } }] }));
    const schedule = scheduleOf(4, [{ name: 'k@host', home: 'host', scope: 'step' }], uses);
    const order = (depth: number): string => drawn(moveData(schedule, PLACES, depth));
    expect(order(1)).toBe('copy0 op0 copy1 op1 copy2 op2 copy3 op3');
    expect(order(2)).toBe('copy0 copy1 op0 copy2 op1 copy3 op2 op3');
    expect(order(3)).toBe('copy0 copy1 copy2 op0 copy3 op1 op2 op3');
  });

  it('fetches a tile at once, and no chunk of it that is overwritten first', () => {
    const tile = { tensor: 'k@host', chunks: { start: 0, end: 2 } };
    const chunk = { tensor: 'k@host', chunks: { start: 1, end: 2 } };
    const staged = (first: Group): readonly string[] => {
      const ops = [op(0, 0, { [first]: [chunk] }), op(1, 0, { reads: [tile] })];
      const [section] = moveData(scheduleOf(2, [{ name: 'k@host', home: 'host', scope: 'step', tileChunks: 2 }], ops), PLACES, 1).sections;
      return copiesOf(section as LogicalSection).map(({ reads, writes }) => `${drawnRef(reads[0])} to ${drawnRef(writes[0])}`);
    };
    expect(staged('reads')).toEqual(['k@host 0-2 to k@host.hbm 0-2']);
    expect(staged('accumulates')).toEqual(['k@host 0-2 to k@host.hbm 0-2', 'k@host.hbm 1-2 to k@host 1-2']);
    expect(staged('writes')).toEqual(['k@host 0-1 to k@host.hbm 0-1', 'k@host.hbm 1-2 to k@host 1-2']);
  });

  it('takes two hops through a ring in each pool', () => {
    const use = op(0, 0, { accumulates: [{ tensor: 'o@disk', chunks: { start: 0, end: 1 } }] });
    const moved = moveData(scheduleOf(1, [{ name: 'o@disk', home: 'disk', scope: 'step' }], [use]), PLACES, 1);
    const pairs = moved.sections.flatMap(copiesOf).map(({ reads, writes }) => `${reads[0]?.tensor} to ${writes[0]?.tensor}`);
    expect(pairs).toEqual(['o@disk to o@disk.host', 'o@disk.host to o@disk.hbm', 'o@disk.hbm to o@disk.host', 'o@disk.host to o@disk']);
  });

  it('what a call leaves of its own tensors stays where it is', () => {
    const ref = { tensor: 'q@host', chunks: { start: 0, end: 1 } };
    const copies = (scope: Tensor['scope'], ...groups: readonly Group[]): number => {
      const ops = (['writes', ...groups] as const).map((group, i) => op(i, i, { [group]: [ref] }));
      return moveData(scheduleOf(1, [{ name: 'q@host', home: 'host', scope }], ops), PLACES, 2).sections.flatMap(copiesOf).length;
    };
    expect(copies('call', 'reads')).toBe(2);
    expect(copies('call', 'writes')).toBe(0);
    expect(copies('call', 'accumulates')).toBe(2);
    expect(copies('call', 'writes', 'reads')).toBe(2);
    expect(copies('step', 'writes', 'reads')).toBe(3);
    expect(copies('step', 'writes')).toBe(2);
  });

  it('refuses to stage chunks of two tiles as one', () => {
    const use = op(0, 0, { reads: [{ tensor: 'k@host', chunks: { start: 1, end: 3 } }] });
    const schedule = scheduleOf(4, [{ name: 'k@host', home: 'host', scope: 'step', tileChunks: 2 }], [use]);
    expect(() => moveData(schedule, PLACES, 1)).toThrow(/uses chunks 1\.\.3 of k@host, which is staged 2 at a time/);
  });
});

/** What all tensors hold after the section: those of step scope began with values, those of call scope with none. */
function results({ tensors, sections }: LogicalSchedule, declared: readonly Tensor[]): Readonly<Record<string, readonly number[]>> {
  const memory = new Memory(tensors);
  memory.fill(declared.filter(({ scope }) => scope === 'step').map(({ name }) => name));
  for (const section of sections) run(section, memory, ARGS);
  const kept = declared.filter(({ scope, home }) => scope === 'step' || home === PLACES.device);
  return Object.fromEntries(kept.map(({ name }) => [name, memory.all(name)]));
}

/** Ops on tensors that are not on the device, and copies that no link makes. */
function misplaced({ tensors, sections }: LogicalSchedule): readonly string[] {
  const homes = new Map(tensors.map(({ name, home }) => [name, home]));
  const home = (ref: TensorRef | undefined): string => homes.get(ref?.tensor ?? '') ?? '';
  return sections
    .flatMap(({ ops }) => ops)
    .filter(({ kind, reads, writes, accumulates }) => {
      if (kind !== 'copy') return [...reads, ...writes, ...accumulates].some((ref) => home(ref) !== PLACES.device);
      return reads.length !== 1 || writes.length !== 1 || PLACES.streamOf(home(reads[0]), home(writes[0])) === '';
    })
    .map(({ kind, tokens }) => `${kind} ${tokens.start}`);
}

function copiesOf({ ops }: LogicalSection): readonly LogicalOp[] {
  return ops.filter(({ kind }) => kind === 'copy');
}

/** `copy1 op0`: chunks that are copied, and ops by number. */
function drawn({ sections }: LogicalSchedule): string {
  const ops = sections.flatMap((section) => section.ops);
  return ops.map(({ kind, reads, tokens }) => (kind === 'copy' ? `copy${reads[0]?.chunks.start}` : `op${tokens.start}`)).join(' ');
}

function drawnRef(ref: TensorRef | undefined): string {
  return `${ref?.tensor} ${ref?.chunks.start}-${ref?.chunks.end}`;
}

function op(number: number, turn: number, views: Partial<Record<Group, readonly TensorRef[]>>): LogicalOp {
  const bare = { kind: 'zero', tokens: { start: number, end: number + 1 }, kv: undefined, attribute: undefined, turn } as const;
  return { ...bare, reads: [], writes: [], accumulates: [], ...views };
}

type SomeTensor = Pick<Tensor, 'name' | 'home' | 'scope'> & Partial<Tensor>;

function scheduleOf(numChunks: number, tensors: readonly SomeTensor[], ops: readonly LogicalOp[]): LogicalSchedule {
  const declared = tensors.map((one) =>
    tensor({
      dtype: 'float32',
      layout: 'head',
      inner: [],
      chunkRows: ROWS,
      slots: numChunks,
      chunkInstances: PLACES.isFile(one.home),
      ...one,
    }),
  );
  const params = [...ARGS.keys()].map((name) => ({ name }));
  return { tensors: declared, sections: [{ name: 'section', params, ops }], turns: [], tables: [] };
}

interface RandomRef {
  readonly tensor: number;
  readonly group: Group;
  readonly chunk: number;
  readonly length: number;
  readonly param: string;
  readonly rows: readonly [number, number] | undefined;
}

/**
 * One to four tensors of any home, tile, scope and number of instances; up to 24 ops on whole tiles, chunks or rows of them, whose
 * turns come and go in any order.
 */
function randomSection(): fc.Arbitrary<LogicalSchedule> {
  const anyTensor = fc.record({
    home: fc.constantFrom('hbm', 'host', 'disk'),
    tileChunks: fc.integer({ min: 1, max: 3 }),
    scope: fc.constantFrom('call' as const, 'step' as const),
    isNamed: fc.boolean(),
  });
  const anyRef = fc.record({
    tensor: fc.nat(3),
    group: fc.constantFrom<Group>('reads', 'writes', 'accumulates'),
    chunk: fc.nat(5),
    length: fc.integer({ min: 1, max: 3 }),
    param: fc.constantFrom(...ARGS.keys()),
    rows: fc.option(fc.constantFrom<readonly [number, number]>([0, 1], [1, 2], [1, 3]), { nil: undefined, freq: 3 }),
  });
  const anyOp = fc.record({ turn: fc.nat(3), refs: fc.array(anyRef, { minLength: 1, maxLength: 4 }) });
  return fc
    .record({
      numChunks: fc.integer({ min: 1, max: 6 }),
      tensors: fc.array(anyTensor, { minLength: 1, maxLength: 4 }),
      ops: fc.array(anyOp, { maxLength: 24 }),
    })
    .map(({ numChunks, tensors, ops }) => {
      const declared = tensors.map(
        ({ home, tileChunks, scope, isNamed }, i): SomeTensor => ({
          name: `t${i}`,
          home,
          scope,
          tileChunks: home === 'disk' ? 1 : tileChunks,
          // What a parameter names is alive between calls.
          instances: isNamed && scope === 'step' ? 3 : 1,
        }),
      );
      const written = new Written(numChunks, declared);
      return scheduleOf(
        numChunks,
        declared,
        ops.map(({ turn, refs }, i) => written.op(i, turn, refs)),
      );
    });
}

/** Makes ops of random refs that read nothing before it was written, and change no row twice. */
class Written {
  private readonly numChunks: number;
  private readonly tensors: readonly SomeTensor[];
  private readonly rows = new Set<string>();

  constructor(numChunks: number, tensors: readonly SomeTensor[]) {
    this.numChunks = numChunks;
    this.tensors = tensors;
  }

  op(number: number, turn: number, random: readonly RandomRef[]): LogicalOp {
    const views: Record<Group, TensorRef[]> = { reads: [], writes: [], accumulates: [] };
    const changed = new Set<string>();
    for (const { group: wanted, ...one } of random) {
      const ref = this.refOf(one);
      const group = wanted !== 'writes' && !this.isDefined(ref) ? 'writes' : wanted;
      const rows = rowsOf(ref);
      if (group !== 'reads' && rows.some((row) => changed.has(row))) continue;
      if (group !== 'reads') for (const row of rows) changed.add(row);
      views[group].push(ref);
    }
    for (const ref of views.writes) for (const row of rowsOf(ref)) this.rows.add(row);
    return op(number, turn, views);
  }

  /** Within a tile where the tensor is staged. */
  private refOf({ tensor: number, chunk, length, param, rows }: Omit<RandomRef, 'group'>): TensorRef {
    const { name, home, tileChunks = 1, instances = 1 } = this.tensors[number % this.tensors.length] as SomeTensor;
    const start = chunk % this.numChunks;
    const most = home === PLACES.device ? this.numChunks : (Math.floor(start / tileChunks) + 1) * tileChunks;
    const end = Math.min(start + length, most, this.numChunks);
    return {
      tensor: name,
      chunks: { start, end },
      ...(instances > 1 ? { param } : {}),
      ...(rows !== undefined && end - start === 1 ? { rows: { start: rows[0], end: rows[1] } } : {}),
    };
  }

  private isDefined(ref: TensorRef): boolean {
    const { scope } = this.tensors.find(({ name }) => name === ref.tensor) as SomeTensor;
    return scope === 'step' || rowsOf(ref).every((row) => this.rows.has(row));
  }
}

function rowsOf({ tensor: name, chunks, rows, param }: TensorRef): readonly string[] {
  const numRows = (chunks.end - chunks.start) * ROWS;
  const { start, end } = rows ?? { start: 0, end: numRows };
  return Array.from({ length: end - start }, (_, i) => `${name}/${param ?? ''}/${chunks.start * ROWS + start + i}`);
}
