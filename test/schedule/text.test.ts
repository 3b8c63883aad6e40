import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OP_KIND_NAMES, OP_ROWS } from '../../src/catalog/ops/index.js';
import type { Access, Attribute, Op, Parameter, Role, Section } from '../../src/schedule/op.js';
import type { Call, Program, Turn } from '../../src/schedule/program.js';
import { callToText, fullMasks, programFromText, programToText } from '../../src/schedule/programText.js';
import { opFromText, opToText, sectionFromText, sectionToText } from '../../src/schedule/text.js';
import { samplePlan } from '../plan/samplePlan.js';
import { PROGRAM, SECTIONS } from '../plan/sampleText.js';

const STREAMS = ['compute', 'comm', 'h2d', 'd2h', 'read', 'write'];
const ATTRIBUTES: readonly Attribute[] = [
  { mask: { kind: 'full' } },
  { mask: { kind: 'causal' } },
  { mask: { kind: 'window', window: 4096 } },
  { tiles: 4 },
  { mask: { kind: 'causal' }, tiles: 2 },
  { mask: { kind: 'full' }, heads: { groups: 4, group: 1 } },
  { heads: { groups: 4 } },
];
const SCHEDULE = { buffers: ['x', 'k.staged', 'o.saved@disk', 'wgrad_layer2'].map((name, id) => ({ id, name })), attributes: ATTRIBUTES };

const natural = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const range = fc.record({ start: natural, end: natural });
/** Defined values only: absent is absent. */
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
function defined<T extends object>(value: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}

const role: fc.Arbitrary<Role> = fc.record({
  value: fc.constantFrom('hidden', 'hiddenGradient', 'attentionOutput'),
  layer: fc.integer({ min: -2, max: 200 }),
});
const parameters: fc.Arbitrary<readonly Parameter[]> = fc
  .uniqueArray(fc.constantFrom('x', 'y', 'saved', 'next_2'), { maxLength: 4 })
  .chain((names) =>
    fc.tuple(
      ...names.map((name) =>
        fc.record({ entry: optional(role), exit: optional(role) }).map((roles) => defined<Parameter>({ name, ...roles })),
      ),
    ),
  );

const accessOf = (numParams: number): fc.Arbitrary<Access> =>
  fc.record({
    buffer: fc.nat({ max: SCHEDULE.buffers.length - 1 }),
    rows: range,
    param: fc.integer({ min: -1, max: numParams - 1 }),
    index: fc.integer({ min: -3, max: 200 }),
  });

function opOf(numParams: number): fc.Arbitrary<Op> {
  const accesses = fc.array(accessOf(numParams), { maxLength: 4 });
  return fc
    .record({
      id: natural,
      kind: fc.constantFrom(...OP_KIND_NAMES),
      stream: fc.constantFrom(...STREAMS),
      tokens: range,
      kv: optional(range),
      attribute: optional(fc.nat({ max: ATTRIBUTES.length - 1 })),
      reads: accesses,
      writes: accesses,
      accumulates: accesses,
      waits: fc.array(natural, { maxLength: 4 }),
      scratchBytes: natural,
    })
    .map((op) => defined<Op>(op));
}

const section: fc.Arbitrary<Section> = parameters.chain((params) =>
  fc.record({
    name: fc.constantFrom('layerForward', 'layerForward.1', 'relocate.2'),
    params: fc.constant(params),
    ops: fc.array(opOf(params.length), { maxLength: 5 }),
  }),
);

describe('op text', () => {
  it('parses back, with its section', () => {
    fc.assert(
      fc.property(section, (value) => {
        expect(sectionFromText(sectionToText(value, SCHEDULE), SCHEDULE)).toEqual(value);
        for (const op of value.ops) expect(opFromText(opToText(op, value, SCHEDULE), value, SCHEDULE)).toEqual(op);
      }),
    );
  });

  it('is what people read', () => {
    const params = [{ name: 'x' }, { name: 'y' }];
    const text = '12 attn t[1536:2048) kv[0:1536) mask causal r x#3[0:512) x#y[0:512) x#y+1[0:8) w k.staged[0:512) after 9 11 scratch 4096';
    const op = opFromText(text, { params }, SCHEDULE);
    expect(op).toEqual({
      id: 12,
      kind: 'attn',
      stream: 'compute',
      tokens: { start: 1536, end: 2048 },
      kv: { start: 0, end: 1536 },
      attribute: 1,
      reads: [
        { buffer: 0, rows: { start: 0, end: 512 }, param: -1, index: 3 },
        { buffer: 0, rows: { start: 0, end: 512 }, param: 1, index: 0 },
        { buffer: 0, rows: { start: 0, end: 8 }, param: 1, index: 1 },
      ],
      writes: [{ buffer: 1, rows: { start: 0, end: 512 }, param: -1, index: 0 }],
      accumulates: [],
      waits: [9, 11],
      scratchBytes: 4096,
    });
    expect(opToText(op, { params }, SCHEDULE)).toBe(text);
  });

  it('names a stream only where the kind does not', () => {
    const copy = opFromText('0 copy:h2d t[0:1) r x[0:1) w x#1[0:1)', { params: [] }, SCHEDULE);
    expect(copy.stream).toBe('h2d');
    expect(opToText({ ...copy, kind: 'attn', stream: 'comm' }, { params: [] }, SCHEDULE)).toMatch(/^0 attn:comm /);
    expect(opToText({ ...copy, kind: 'toHeads', stream: OP_ROWS.toHeads.stream }, { params: [] }, SCHEDULE)).toMatch(/^0 toHeads /);
  });

  it('of an op that names what is not there is still text', () => {
    const op = opFromText('0 attn t[0:1) tiles 4 r x#y[0:1)', { params: [{ name: 'y' }] }, SCHEDULE);
    expect(opToText(op, { params: [] }, { buffers: [], attributes: [] })).toBe('0 attn t[0:1) attribute3 r buffer0#param0[0:1)');
  });

  it.each([
    ['0 attnn t[0:1)', 'unknown op kind attnn'],
    ['0 attn', 'ends where tokens'],
    ['zero attn t[0:1)', 'expected a whole number, found zero'],
    ['0 copy t[0:1) r x[0:1) w x[0:1)', 'copy needs the stream of its link'],
    ['0 attn t[0-1)', 'expected a range'],
    ['0 attn t[0:1) r y[0:1)', 'no buffer is called y'],
    ['0 attn t[0:1) r x#z[0:1)', 'no parameter is called z'],
    ['0 attn t[0:1) mask round', 'expected a mask full, causal or window, found round'],
    ['0 attn t[0:1) mask window 8', 'the plan has no attribute "mask window 8"'],
    ['0 attn t[0:1) before 3', 'did not understand "before"'],
  ])('refuses %s', (text, problem) => {
    expect(() => opFromText(text, { params: [{ name: 'y' }] }, SCHEDULE)).toThrow(problem);
  });
});

describe('section text', () => {
  const plan = samplePlan();

  it.each(plan.sections.map((one) => [one.name, one] as const))('of %s says its parameters and their roles', (_name, one) => {
    const text = sectionToText(one, plan);
    expect(sectionFromText(text, plan)).toEqual(one);
    expect(SECTIONS.map((written) => written.split('\n')[0])).toContain(text.split('\n')[0]);
  });

  it.each([
    ['layerForward(x)', 'expected "section <name>(<parameters>)"'],
    ['section layerForward(x: hidden)', 'expected a parameter like'],
    ['section layerForward(x: nothing+0 ->)', 'expected a parameter like'],
  ])('refuses %s', (text, problem) => {
    expect(() => sectionFromText(text, plan)).toThrow(problem);
  });
});

describe('program text', () => {
  const plan = samplePlan();
  const sections = [
    { name: 'layerForward.1', params: [{ name: 'x' }, { name: 'y' }] },
    { name: 'gather', params: [] },
  ];
  const schedule = { sections, streams: STREAMS };
  const call: fc.Arbitrary<Call> = fc.constantFrom(...sections).chain(({ name, params }) =>
    fc
      .record({
        section: fc.constant(name),
        args: fc.tuple(...params.map(() => fc.nat())),
        layer: optional(fc.nat({ max: 200 })),
        owner: fc.constantFrom('plan', 'zero'),
        waits: fc.oneof(fc.constant(fullMasks(STREAMS)), fc.tuple(...STREAMS.map(() => fc.nat({ max: 2 ** STREAMS.length - 1 })))),
      })
      .map((one) => defined<Call>(one)),
  );
  /** Names of turns that follow one another differ, as they do in a program. */
  const program: fc.Arbitrary<Program> = fc
    .array(
      fc.record({
        module: fc.constantFrom('embed', 'layer', 'head', 'end'),
        direction: fc.constantFrom('forward', 'backward'),
        calls: fc.array(call, { maxLength: 3 }),
      }),
    )
    .map((turns) => ({ turns: turns.map((turn, layer): Turn => ({ ...turn, layer }) as Turn) }));

  it('parses back', () => {
    fc.assert(
      fc.property(program, (value) => {
        expect(programFromText(programToText(value, schedule), schedule)).toEqual(value);
      }),
    );
  });

  it('is a line for every turn and call', () => {
    expect(programToText(plan.programs.train, plan)).toBe(PROGRAM.trim());
    expect(plan.programs.train.turns).toHaveLength(11);
  });

  it('says which stream waits for which', () => {
    const waits = [0b1100, 0b0001, 0, 0, 0, 0];
    const forward: Call = { section: 'layerForward.1', args: [3, 4], layer: 3, owner: 'plan', waits };
    expect(callToText(forward, schedule)).toBe('layerForward.1(x=3, y=4) layer 3 waits compute<h2d,d2h comm<compute');
    expect(fullMasks(['compute', 'comm', 'h2d'])).toEqual([0b110, 0b101, 0b011]);
  });

  it.each([
    ['layer 3: gather()', 'expected "<turn>: <call>"'],
    ['layer 3 forward: gather', 'did not understand the call gather'],
    ['layer 3 forward: sleep(x=1)', 'no section is called sleep'],
    ['layer 3 forward: layerForward.1(y=1, x=2)', 'expected x=<instance>, found y=1'],
    ['layer 3 forward: gather(x=1)', 'expected no more than 0 arguments, found x=1'],
    ['layer 3 forward: gather() waits tape<comm', 'no stream is called tape'],
  ])('refuses %s', (text, problem) => {
    expect(() => programFromText(text, schedule)).toThrow(problem);
  });
});
