import { createHash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { OP_KIND_NAMES } from '../../src/catalog/ops/index.js';
import { bytesOf, COLUMN_NAMES, type ColumnName, unpackColumn } from '../../src/plan/columns.js';
import { decodePlan } from '../../src/plan/decode.js';
import { type EncodedPlan, encodePlan, sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan, UnsealedPlan } from '../../src/plan/executionPlan.js';
import type { Op, Section } from '../../src/schedule/op.js';
import { samplePlan } from './samplePlan.js';

const column = ({ columns }: EncodedPlan, name: ColumnName): readonly number[] => {
  const found = columns.find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`no column ${name}`);
  return Array.from(unpackColumn({ ...found, data: inflateSync(found.data) }));
};

const withOp = (plan: ExecutionPlan, name: string, id: number, change: Partial<Op>): UnsealedPlan => ({
  ...plan,
  sections: plan.sections.map(
    (section): Section =>
      section.name === name ? { ...section, ops: section.ops.map((op) => (op.id === id ? { ...op, ...change } : op)) } : section,
  ),
});

describe('encodePlan', () => {
  const plan = samplePlan();
  const encoded = encodePlan(plan);

  it('gives a plan back by decoding, and the same bytes by encoding that again', () => {
    const decoded = decodePlan(encoded);
    expect(decoded).toEqual(plan);
    const again = encodePlan(decoded);
    expect(again.header.equals(encoded.header)).toBe(true);
    expect(again.digest).toBe(plan.digest);
  });

  it('concatenates the ops of all sections in order, with offsets into views of interned accesses', () => {
    const ops = plan.sections.flatMap((section) => section.ops);
    const chosen = ops.findIndex((op) => op.kind === 'attnBwd' && op.waits.length > 0);
    const op = ops[chosen];
    if (op === undefined) throw new Error('the plan has no attnBwd that waits');
    expect(OP_KIND_NAMES[column(encoded, 'opKind')[chosen] ?? -1]).toBe('attnBwd');
    expect(plan.streams[column(encoded, 'opStream')[chosen] ?? -1]).toBe('compute');
    expect(column(encoded, 'opKv').slice(2 * chosen, 2 * chosen + 2)).toEqual([op.kv?.start, op.kv?.end]);
    expect(column(encoded, 'opNumReads')[chosen]).toBe(6);
    expect(column(encoded, 'opNumWrites')[chosen]).toBe(0);
    const views = column(encoded, 'view').slice(...column(encoded, 'opViews').slice(chosen, chosen + 2));
    const access = (name: ColumnName) => views.map((view) => column(encoded, name)[view]);
    const all = [...op.reads, ...op.accumulates];
    expect(access('accessBuffer')).toEqual(all.map(({ buffer }) => buffer));
    expect(access('accessEnd')).toEqual(all.map(({ rows }) => rows.end));
    expect(access('accessParam')).toEqual(all.map(({ param }) => param));
    const waits = column(encoded, 'opWaits').slice(chosen, chosen + 2);
    expect(column(encoded, 'wait').slice(...waits)).toEqual(op.waits);
    expect(column(encoded, 'opViews')).toHaveLength(ops.length + 1);
  });

  it('has no access twice', () => {
    const names = ['accessBuffer', 'accessStart', 'accessEnd', 'accessParam', 'accessIndex'] as const;
    const rows = column(encoded, 'accessBuffer').map((_, i) => names.map((name) => column(encoded, name)[i]).join());
    expect(new Set(rows).size).toBe(rows.length);
    expect(rows.length).toBeLessThan(column(encoded, 'view').length);
  });

  it('digests header bytes and uncompressed columns, in the order of the header', () => {
    expect(encoded.columns.map(({ name }) => name)).toEqual(COLUMN_NAMES);
    const raw = encoded.columns.map(({ data }) => inflateSync(data));
    expect(raw.map(({ length }) => length)).toEqual(encoded.columns.map(bytesOf));
    const hash = createHash('sha256')
      .update(Buffer.concat([encoded.header, ...raw]))
      .digest('hex');
    expect(encoded.digest).toBe(hash);
    expect(plan.digest).toBe(hash);
  });

  it('keeps ops, prose and digest out of the header', () => {
    const header = JSON.parse(encoded.header.toString('utf8')) as Record<string, unknown>;
    expect(header).toMatchObject({ device: 'cuda', numRanks: 2, ranksPerNode: 2, features: plan.features });
    for (const key of ['digest', 'cluster', 'memory', 'prediction', 'schedule']) expect(header).not.toHaveProperty(key);
    expect(header['sections']).toContainEqual({ name: 'optimizerStep', params: [], numOps: 1 });
    expect(Object.keys(JSON.parse(encoded.prose.toString('utf8')) as object)).toEqual(['cluster', 'memory', 'prediction']);
  });
});

describe('the digest', () => {
  const plan = samplePlan();
  const unexecuted: readonly (readonly [string, Partial<UnsealedPlan>])[] = [
    ['where rates come from', { cluster: { ...plan.cluster, ratesSource: 'measured on another day' } }],
    ['the ledger', { memory: { ...plan.memory, fits: true } }],
    ['the prediction', { prediction: { ...plan.prediction, stepSeconds: 3 } }],
  ];
  it.each(unexecuted)('does not depend on %s', (_what, changes) => {
    expect(sealPlan({ ...plan, ...changes }).digest).toBe(plan.digest);
  });

  const turns = plan.programs.train.turns;
  const executed: readonly (readonly [string, UnsealedPlan])[] = [
    ['a wait', withOp(plan, 'layerForward', 4, { waits: [0] })],
    ['a mask', withOp(plan, 'layerForward', 4, { attribute: 1 })],
    ['rows', withOp(plan, 'lossBackward', 1, { accumulates: [{ buffer: 4, rows: { start: 0, end: 31 }, param: 0, index: 0 }] })],
    ['an argument', withCall(turns, { args: [1] })],
    ['a bit of an entry mask', withCall(turns, { waits: [0, 1, 0, 0, 0, 0] })],
    ['an address', { ...plan, buffers: plan.buffers.map((buffer) => ({ ...buffer, offset: buffer.offset + 512 })) }],
    ['the capacity of a table', { ...plan, tables: plan.tables.map((table) => ({ ...table, capacity: 64 })) }],
    ['a limit of the ds_config', { ...plan, deepspeed: { ...plan.deepspeed, gradient_clipping: 0.5 } }],
    ['a kernel', { ...plan, kernels: { attn: 'reference', attnBwd: 'flash2' } }],
    ['the size of a pool', { ...plan, pools: plan.pools.map((pool) => ({ ...pool, bytes: pool.bytes + 512 })) }],
    ['the number of ranks', { ...plan, cluster: { ...plan.cluster, numRanks: 4 } }],
  ];
  it.each(executed)('depends on %s', (_what, changed) => {
    expect(sealPlan(changed).digest).not.toBe(plan.digest);
  });

  function withCall([first, ...rest]: typeof turns, change: object): UnsealedPlan {
    if (first === undefined) throw new Error('the program is empty');
    const changed = { ...first, calls: first.calls.map((call) => (call.owner === 'plan' ? { ...call, ...change } : call)) };
    return { ...plan, programs: { train: { turns: [changed, ...rest] } } };
  }
});

describe('numbers of a plan', () => {
  const plan = samplePlan();

  it.each([
    ['opScratch of int64 cannot hold 4096.5', withOp(plan, 'lossForward', 1, { scratchBytes: 4096.5 })],
    ['opTokens of int64 cannot hold 9007199254740992', withOp(plan, 'lossForward', 1, { tokens: { start: 0, end: 2 ** 53 } })],
    ['opAttribute of int32 cannot hold 2147483648', withOp(plan, 'lossForward', 1, { attribute: 2 ** 31 })],
    ['opStream of uint8 cannot hold -1', withOp(plan, 'lossForward', 1, { stream: 'elsewhere' })],
    ['accessParam of int16 cannot hold 32768', withOp(plan, 'lossForward', 0, { writes: [access({ param: 2 ** 15 })] })],
    ['accessStart of int64 cannot hold NaN', withOp(plan, 'lossForward', 0, { writes: [access({ rows: { start: Number.NaN, end: 1 } })] })],
  ])('that a column cannot hold are refused: %s', (message, changed) => {
    expect(() => encodePlan(changed)).toThrow(new RegExp(`column ${message}`));
    expect(() => encodePlan(changed)).toThrow(RangeError);
  });

  it('that JSON or the header cannot hold are refused', () => {
    expect(() => encodePlan({ ...plan, prediction: { ...plan.prediction, stepSeconds: Number.NaN } })).toThrow(/stepSeconds = NaN/);
    expect(() => encodePlan({ ...plan, kernels: { attn: 'two words', attnBwd: 'reference' } })).toThrow(
      /does not fit its header[\s\S]*kernels/,
    );
  });

  it('may count elements beyond 2^31, as rows of Llama-3.1-405B do', () => {
    const { hiddenSize: h, mlpWidth: f, vocabSize: v } = { hiddenSize: 16_384, mlpWidth: 53_248, vocabSize: 128_256 };
    const layer = 2 * h + 2 * h * h + 2 * h * 1024 + 3 * h * f;
    const regions: Readonly<Record<string, number>> = { wgradLayer: layer, wgradHead: h + v * h, wgradEmbed: v * h };
    expect(layer).toBeGreaterThan(2 ** 31);
    const buffers = plan.buffers.map((buffer) => ({
      ...buffer,
      shape: [regions[buffer.name] ?? buffer.shape[0] ?? 0, ...buffer.shape.slice(1)],
    }));
    const ids = new Map(buffers.map(({ name, id }) => [name, id]));
    const toRegion = (name: string) => ({
      buffer: ids.get(name) ?? -1,
      rows: { start: layer - 3 * h * f, end: regions[name] ?? 0 },
      param: -1,
      index: 0,
    });
    const large = sealPlan({
      ...withOp(plan, 'layerBackward', 0, { writes: [toRegion('wgradLayer')], scratchBytes: 2 ** 40 + 1 }),
      buffers,
    });
    expect(decodePlan(encodePlan(large))).toEqual(large);
    expect(column(encodePlan(large), 'accessEnd')).toContain(layer);
  });

  function access(change: object) {
    return { buffer: 0, rows: { start: 0, end: 1 }, param: -1, index: 0, ...change };
  }
});

describe('a plan of half a million ops', () => {
  it('is encoded and decoded in seconds and in little memory', () => {
    const plan = samplePlan();
    const numOps = 500_000;
    const section = plan.sections.find(({ name }) => name === 'layerForward');
    if (section === undefined) throw new Error('no section layerForward');
    const ops = Array.from({ length: numOps }, (_, id): Op => {
      const op = section.ops[id % section.ops.length] as Op;
      return { ...op, id, waits: id > 3 ? [id - 3, id - 1] : [] };
    });
    const large = { ...plan, sections: plan.sections.map((one) => (one === section ? { ...one, ops } : one)) };
    const before = process.memoryUsage().arrayBuffers;
    const cpu = process.cpuUsage();
    const encoded = encodePlan(large);
    const decoded = decodePlan(encoded);
    const { user, system } = process.cpuUsage(cpu);
    expect(decoded.sections.find(({ name }) => name === 'layerForward')?.ops.at(-1)).toEqual(ops.at(-1));
    expect(encoded.columns.reduce((sum, { data }) => sum + data.length, 0)).toBeLessThan(16 * numOps);
    // Some 110 bytes an op as raw columns; generous, for a machine that does other things too.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1000 * numOps);
    // Some 3 s of processor time, which other work on the machine changes little.
    expect((user + system) / 1e6).toBeLessThan(30);
  });
});
