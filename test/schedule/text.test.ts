import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildSchedule } from '../../src/schedule/build.js';
import { OP_KIND_NAMES, OP_KINDS, type Access, type Op } from '../../src/schedule/op.js';
import { opFromText, opToText, sectionFromText, sectionToText } from '../../src/schedule/text.js';
import { smallContext } from './context.js';

const BUFFERS = ['x', 'k.staged', 'wgradLayer'].map((name, id) => ({ id, name }));
const natural = fc.nat({ max: 2 ** 31 - 1 });
const range = fc.record({ start: natural, end: natural });
const access: fc.Arbitrary<Access> = fc.record({
  buffer: fc.nat({ max: BUFFERS.length - 1 }),
  rows: range,
  bind: fc.constantFrom('fixed', 'segment', 'layer'),
  index: fc.nat({ max: 200 }),
});
const accesses = fc.array(access, { maxLength: 4 });
const op: fc.Arbitrary<Op> = fc
  .record({
    id: natural,
    kind: fc.constantFrom(...OP_KIND_NAMES),
    layerSlot: fc.nat({ max: 9 }),
    tokens: range,
    kv: fc.option(range, { nil: undefined }),
    reads: accesses,
    writes: accesses,
    accumulates: accesses,
    waits: fc.array(natural, { maxLength: 4 }),
    scratchBytes: fc.nat(),
  })
  .map(({ kv, ...rest }) => ({ ...rest, stream: OP_KINDS[rest.kind].stream, ...(kv === undefined ? {} : { kv }) }));

describe('op text', () => {
  it('parses back to the same op', () => {
    fc.assert(
      fc.property(op, (value) => {
        expect(opFromText(opToText(value, BUFFERS), BUFFERS)).toEqual(value);
      }),
    );
  });

  it.each(['ulysses', 'fpdt', 'auto'] as const)('every section of %s parses back', (policy) => {
    const { schedule, buffers } = buildSchedule(smallContext(policy, policy === 'ulysses' ? 1 : 4, { segmentLayers: 2 }), () => 16);
    for (const section of Object.values(schedule)) {
      expect(sectionFromText(sectionToText(section, buffers), buffers)).toEqual(section);
    }
  });

  it.each([
    ['0 attnn L0 t[0:1)', 'unknown op kind attnn'],
    ['0 attn L0', 'ends where tokens'],
    ['zero attn L0 t[0:1)', 'expected a whole number, found zero'],
    ['0 attn L0 t[0-1)', 'expected a range'],
    ['0 attn L0 t[0:1) r y[0:1)', 'no buffer is called y'],
    ['0 attn L0 t[0:1) before 3', 'did not understand "before"'],
  ])('refuses %s', (text, problem) => {
    expect(() => opFromText(text, BUFFERS)).toThrow(problem);
  });
});
