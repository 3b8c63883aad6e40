import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../../src/plan/canonical.js';
import { type ColumnName, unpackColumn } from '../../src/plan/columns.js';
import { decodePlan } from '../../src/plan/decode.js';
import { type EncodedPlan, encodePlan, sealPlan } from '../../src/plan/encode.js';
import { OP_KIND_NAMES, SECTIONS, STREAMS } from '../../src/schedule/op.js';
import { samplePlan } from './samplePlan.js';

const column = ({ columns }: EncodedPlan, name: ColumnName): readonly number[] => {
  const found = columns.find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`no column ${name}`);
  return unpackColumn(found);
};

describe('encodePlan', () => {
  it.each(['ulysses', 'fpdt', 'auto'] as const)('%s: decoding gives the plan back', (policy) => {
    const plan = samplePlan(policy);
    expect(decodePlan(encodePlan(plan))).toEqual(plan);
  });

  it('concatenates the ops of all sections in order, with CSR offsets into the views', () => {
    const plan = samplePlan();
    const encoded = encodePlan(plan);
    const ops = SECTIONS.flatMap((name) => plan.schedule[name].ops);
    const chosen = ops.findIndex((op) => op.kind === 'attnBwd' && op.waits.length > 0);
    const op = ops[chosen];
    if (op === undefined) throw new Error('the plan has no attnBwd that waits');
    expect(OP_KIND_NAMES[column(encoded, 'opKind')[chosen] ?? -1]).toBe('attnBwd');
    expect(STREAMS[column(encoded, 'opStream')[chosen] ?? -1]).toBe('compute');
    expect(column(encoded, 'opKv').slice(2 * chosen, 2 * chosen + 2)).toEqual([op.kv?.start, op.kv?.end]);
    const [from, to] = column(encoded, 'opReads').slice(chosen, chosen + 2);
    expect(column(encoded, 'readBuffer').slice(from, to)).toEqual(op.reads.map(({ buffer }) => buffer));
    expect(column(encoded, 'readEnd').slice(from, to)).toEqual(op.reads.map(({ rows }) => rows.end));
    const waits = column(encoded, 'opWaits').slice(chosen, chosen + 2);
    expect(column(encoded, 'wait').slice(...waits)).toEqual(op.waits);
    expect(column(encoded, 'opReads')).toHaveLength(ops.length + 1);
    expect(column(encoded, 'opScratch')).toContain(4096.5);
  });

  it('has a canonical header without ops, and a digest over header and columns', () => {
    const plan = samplePlan();
    const { header, columns, digest } = encodePlan(plan);
    const parsed = JSON.parse(header.toString('utf8')) as Record<string, unknown>;
    expect(header.toString('utf8')).toBe(canonicalJson(parsed));
    expect(Object.keys(parsed)).not.toContain('schedule');
    expect(Object.keys(parsed)).not.toContain('digest');
    const hash = createHash('sha256')
      .update(Buffer.concat([header, ...columns.map(({ data }) => data)]))
      .digest('hex');
    expect(digest).toBe(hash);
    expect(plan.digest).toBe(hash);
  });

  it('a different address is a different digest, the same input the same one', () => {
    const plan = samplePlan();
    const { digest: _digest, ...unsealed } = plan;
    const moved = {
      ...unsealed,
      buffers: plan.buffers.map((buffer, i) => (i === 0 ? { ...buffer, offset: buffer.offset + 512 } : buffer)),
    };
    expect(sealPlan(unsealed).digest).toBe(plan.digest);
    expect(sealPlan(moved).digest).not.toBe(plan.digest);
  });

  it('refuses numbers that a column cannot hold', () => {
    const plan = samplePlan();
    const section = plan.schedule.embedForward;
    const ops = section.ops.map((op) => ({ ...op, tokens: { start: 0, end: 2 ** 31 } }));
    expect(() => encodePlan({ ...plan, schedule: { ...plan.schedule, embedForward: { ...section, ops } } })).toThrow(RangeError);
  });
});

describe('decodePlan', () => {
  const encoded = encodePlan(samplePlan());
  const withHeader = (change: (header: Record<string, unknown>) => void) => {
    const header = JSON.parse(encoded.header.toString('utf8')) as Record<string, unknown>;
    change(header);
    return { header: Buffer.from(canonicalJson(header)), columns: encoded.columns };
  };

  it('names a column that is short, missing or of another type', () => {
    const cut = encoded.columns.map((item) => (item.name === 'wait' ? { ...item, data: item.data.subarray(0, -4) } : item));
    expect(() => decodePlan({ header: encoded.header, columns: cut })).toThrow(/column wait has \d+ bytes, expected \d+/);
    const without = encoded.columns.filter(({ name }) => name !== 'opKv');
    expect(() => decodePlan({ header: encoded.header, columns: without })).toThrow(/column opKv is missing/);
    const retyped = withHeader((header) => {
      header['columns'] = (header['columns'] as { name: string }[]).map((item) =>
        item.name === 'opKv' ? { ...item, dtype: 'uint8' } : item,
      );
    });
    expect(() => decodePlan(retyped)).toThrow(/column opKv is of type uint8, expected int32/);
  });

  it('refuses another version, a foreign op kind, a wrong digest and garbage', () => {
    expect(() => decodePlan(withHeader((header) => Object.assign(header, { version: 0 })))).toThrow(/version 0, this fpdt reads version 1/);
    const foreign = withHeader((header) => Object.assign(header, { opKinds: ['teleport', ...OP_KIND_NAMES.slice(1)] }));
    expect(() => decodePlan(foreign)).toThrow(/unknown here: teleport/);
    expect(() => decodePlan({ ...encoded, digest: '0'.repeat(64) })).toThrow(expect.objectContaining({ code: 'plan-digest-mismatch' }));
    expect(() => decodePlan({ header: Buffer.from('{"kind":'), columns: [] })).toThrow(/not JSON/);
  });
});
