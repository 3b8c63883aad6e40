import { deflateSync, inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type ColumnName, COLUMNS, packColumn, unpackColumn } from '../../src/plan/columns.js';
import { decodePlan, type PlanFrames } from '../../src/plan/decode.js';
import { encodePlan } from '../../src/plan/encode.js';
import { planHeaderSchema } from '../../src/plan/header.js';
import { samplePlan } from './samplePlan.js';

const ENCODED = encodePlan(samplePlan());
const { digest: _digest, ...FRAMES } = ENCODED;

interface Json {
  [key: string]: unknown;
}

/** The frames with a changed header. */
function withHeader(change: (header: Json) => void): PlanFrames {
  const header = JSON.parse(ENCODED.header.toString('utf8')) as Json;
  change(header);
  return { ...FRAMES, header: Buffer.from(JSON.stringify(header)) };
}

function withProse(change: (prose: Json) => void): PlanFrames {
  const prose = JSON.parse(ENCODED.prose.toString('utf8')) as Json;
  change(prose);
  return { ...FRAMES, prose: Buffer.from(JSON.stringify(prose)) };
}

/** The frames with other bytes for one column. */
function withBytes(name: ColumnName, change: (deflated: Buffer) => Buffer): PlanFrames {
  return { ...FRAMES, columns: FRAMES.columns.map((column) => (column.name === name ? { ...column, data: change(column.data) } : column)) };
}

/** The frames with one element of a column changed. */
function withElement(name: ColumnName, index: number, value: number): PlanFrames {
  const found = ENCODED.columns.find((column) => column.name === name);
  if (found === undefined) throw new Error(`no column ${name}`);
  const values = [...unpackColumn({ ...found, data: inflateSync(found.data) })];
  values[index] = value;
  return withBytes(name, () => deflateSync(packColumn(name, values).data));
}

const list = (header: Json, key: string): Json[] => header[key] as Json[];
const set = (key: string, value: unknown) => (header: Json) => void Object.assign(header, { [key]: value });

describe('a plan whose frames are not what was sent', () => {
  it.each([
    ['a wrong digest', { ...ENCODED, digest: '0'.repeat(64) }, 'plan-digest-mismatch', /has digest [0-9a-f]{64}, not 0{64}/],
    ['a header that is no JSON', { ...FRAMES, header: Buffer.from('{"kind":') }, 'plan-damaged', /header is not JSON/],
    ['a header that is no object', { ...FRAMES, header: Buffer.from('7') }, 'plan-damaged', /header is not a JSON object/],
    ['another kind of JSON', withHeader(set('kind', 'message')), 'plan-damaged', /its kind is "message"/],
    ['no prose', { ...FRAMES, prose: Buffer.from('{}') }, 'plan-damaged', /prose lacks a cluster/],
    [
      'prose of other ranks',
      withProse(({ cluster }) => Object.assign(cluster as Json, { numRanks: 8 })),
      'plan-damaged',
      /prose says numRanks 8/,
    ],
    [
      'a missing column',
      { ...FRAMES, columns: FRAMES.columns.filter(({ name }) => name !== 'opKv') },
      'plan-damaged',
      /column opKv is missing/,
    ],
    ['a cut column', withBytes('wait', (data) => data.subarray(0, -6)), 'plan-damaged', /column wait does not inflate/],
    ['a garbled column', withBytes('wait', () => Buffer.from('garbage')), 'plan-damaged', /column wait does not inflate/],
    ['a short column', withBytes('wait', () => deflateSync(Buffer.alloc(4))), 'plan-damaged', /column wait has 4 bytes, expected \d+/],
    ['a column that never ends', withBytes('wait', () => deflateSync(Buffer.alloc(1 << 24))), 'plan-damaged', /column wait has more than/],
  ] as const)('%s', (_what, frames, code, message) => {
    expect(() => decodePlan(frames)).toThrow(
      expect.objectContaining({
        code,
        message: expect.stringMatching(message) as string,
        hint: expect.stringContaining('fpdt plan') as string,
      }),
    );
  });
});

describe('a plan of another fpdt', () => {
  it.each([
    [1, /version 1, this fpdt reads version 2/, /^plan again with `fpdt plan`/],
    [3, /version 3, this fpdt reads version 2/, /^use the fpdt version that wrote the plan/],
    [undefined, /version none/, /fpdt plan/],
  ])('of version %s is refused with what to do', (version, message, hint) => {
    expect(() => decodePlan(withHeader(set('version', version)))).toThrow(
      expect.objectContaining({
        code: 'plan-version',
        message: expect.stringMatching(message) as string,
        hint: expect.stringMatching(hint) as string,
      }),
    );
  });

  it.each([
    ['features', (header: Json) => void (header['features'] as string[]).push('teleport'), /features .*: teleport/],
    ['op kinds', (header: Json) => void Object.assign(list(header, 'opKinds')[0] as Json, { name: 'teleport' }), /op kinds .*: teleport/],
    [
      'views of an op kind',
      (header: Json) => void Object.assign(list(header, 'opKinds')[8] as Json, { reads: ['q', 'v', 'k'] }),
      /other views or streams .*: attn/,
    ],
  ])('is refused by name for unknown %s', (_what, change, message) => {
    expect(() => decodePlan(withHeader(change))).toThrow(
      expect.objectContaining({
        code: 'plan-unsupported',
        message: expect.stringMatching(message) as string,
        hint: expect.any(String) as string,
      }),
    );
  });
});

describe('a header that says what cannot be', () => {
  const firstCall = (header: Json): Json => {
    const { train } = header['programs'] as { readonly train: { readonly turns: readonly { readonly calls: Json[] }[] } };
    return train.turns[0]?.calls[1] ?? {};
  };
  const change = (key: string, index: number, changes: Json) => (header: Json) =>
    void Object.assign(list(header, key)[index] as Json, changes);

  it.each([
    ['an unknown key', set('extra', 1), /Unrecognized key: "extra"/],
    ['a number for a name', set('streams', [1]), /streams\.0: .*expected string/],
    ['a pool of no known kind', change('pools', 0, { kind: 'tape' }), /pools\.0\.kind/],
    ['no column twice', (header: Json) => void list(header, 'columns').pop(), /has not one column accessIndex/],
    ['a column of another type', change('columns', 3, { dtype: 'int32' }), /column opKv is of type int32, expected int64/],
    ['a buffer out of place', change('buffers', 1, { id: 7 }), /buffer positions has id 7 at position 1/],
    ['a buffer in no pool', change('buffers', 1, { pool: 'tape' }), /buffer positions lies in pool tape/],
    ['a link on no stream', change('links', 0, { stream: 'tape' }), /links host to hbm on tape/],
    ['strides of other dimensions', change('buffers', 1, { strides: [1, 1] }), /buffer positions has 1 dimensions but 2 strides/],
    ['a table without a buffer', change('tables', 0, { buffer: 99 }), /table tokenIds fills buffer 99/],
    [
      'a call of no section',
      (header: Json) => void Object.assign(firstCall(header), { section: 'nap' }),
      /embed forward calls section nap/,
    ],
    [
      'a call with too many arguments',
      (header: Json) => void Object.assign(firstCall(header), { args: [0, 1] }),
      /with 2 arguments, it has 1 param/,
    ],
    ['a call for no layer', (header: Json) => void Object.assign(firstCall(header), { layer: 3 }), /for layer 3 of 3/],
    [
      'a mask of no stream',
      (header: Json) => void Object.assign(firstCall(header), { waits: [64, 0, 0, 0, 0, 0] }),
      /entry masks of other/,
    ],
    ['too few masks', (header: Json) => void Object.assign(firstCall(header), { waits: [] }), /entry masks of other/],
    ['more ops than there are', change('sections', 0, { numOps: 5 }), /column opKind has \d+ values, \d+ ops need \d+/],
  ])('%s', (_what, changed, message) => {
    expect(() => decodePlan(withHeader(changed))).toThrow(
      expect.objectContaining({ code: 'plan-damaged', message: expect.stringMatching(message) as string }),
    );
  });

  it('has a schema that knows every key', () => {
    const header = JSON.parse(ENCODED.header.toString('utf8')) as Json;
    expect(Object.keys(header)).toEqual(Object.keys(planHeaderSchema.shape));
  });
});

describe('columns that name what is not there', () => {
  it.each([
    ['opKind', 0, 99, /op 0 of embedForward is of kind number 99/],
    ['opStream', 0, 6, /op 0 of embedForward runs on stream number 6 of 6/],
    ['opAttribute', 0, 2, /op 0 of embedForward has attribute number 2 of 2/],
    ['view', 0, 99_999, /op 0 of embedForward names access number 99999/],
    ['view', 0, -1, /names access number -1/],
    ['opNumReads', 0, 9, /op 0 of embedForward reads and writes more views than it has/],
    ['opViews', 0, 1, /offsets of column opViews do not ascend from 0/],
    ['opViews', 2, 1, /offsets of column opViews do not ascend/],
    ['opWaits', 1, 9, /offsets of column opWaits do not ascend/],
    ['accessBuffer', 0, 99, /access 0 names buffer 99 of \d+/],
    ['accessEnd', 0, 33, /access 0 names rows \[0:33\) of tokenIds, which has 32/],
    ['accessStart', 0, -1, /access 0 names rows \[-1:32\)/],
    ['accessParam', 0, 4, /names parameter number 4, the section has 1/],
    ['accessParam', 0, -2, /access 0 names parameter number -2/],
    ['wait', 0, 1, /op 1 of layerForward waits for op 1, which is not an earlier one/],
  ] as const)('%s[%d] = %d', (name, index, value, message) => {
    expect(Object.keys(COLUMNS)).toContain(name);
    expect(() => decodePlan(withElement(name, index, value))).toThrow(
      expect.objectContaining({ code: 'plan-damaged', message: expect.stringMatching(message) as string }),
    );
  });

  it('64-bit numbers that are no safe integers', () => {
    const found = ENCODED.columns.find(({ name }) => name === 'opScratch');
    if (found === undefined) throw new Error('no column opScratch');
    const raw = inflateSync(found.data);
    raw.writeBigInt64LE(2n ** 53n, 8);
    expect(() => decodePlan(withBytes('opScratch', () => deflateSync(raw)))).toThrow(/element 1 of column opScratch is beyond 2\^53/);
  });
});
