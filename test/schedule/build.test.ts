import { describe, expect, it } from 'vitest';
import { buildSchedule } from '../../src/schedule/build.js';
import { OP_KINDS, type OpKind, type Section } from '../../src/schedule/op.js';
import { smallContext } from './context.js';

const count = (section: Section, kind: OpKind): number => section.ops.filter((op) => op.kind === kind).length;

describe('buildSchedule', () => {
  it.each(['ulysses', 'fpdt', 'auto'] as const)('%s: every op has the views its kind declares and waits only on earlier ops', (policy) => {
    const { schedule } = buildSchedule(smallContext(policy, policy === 'ulysses' ? 1 : 8), () => 0);
    for (const section of Object.values(schedule)) {
      for (const op of section.ops) {
        for (const group of ['reads', 'writes', 'accumulates'] as const) {
          const declared = OP_KINDS[op.kind][group];
          if (declared !== 'many') expect(op[group]).toHaveLength(declared.length);
        }
        for (const wait of op.waits) expect(wait).toBeLessThan(op.id);
      }
    }
  });

  it('names a range of kv chunks where k and v are resident: two attention ops a chunk', () => {
    const { schedule } = buildSchedule(smallContext('auto', 8), () => 0);
    expect(count(schedule.layerForward, 'attn')).toBe(2 * 8 - 1);
    expect(count(schedule.layerBackward, 'attnBwd')).toBe(2 * 8 - 1);
    expect(count(schedule.layerForward, 'fetch') + count(schedule.layerBackward, 'fetch')).toBe(0);
  });

  it('fpdt attends and differentiates pair by pair', () => {
    const u = 8;
    const { schedule } = buildSchedule(smallContext('fpdt', u), () => 0);
    expect(count(schedule.layerForward, 'attn')).toBe((u * (u + 1)) / 2);
    expect(count(schedule.layerBackward, 'attnBwd')).toBe((u * (u + 1)) / 2);
  });

  it('a segment of two layers has two parts, the last slot first in backward', () => {
    const { schedule } = buildSchedule(smallContext('auto', 4, { segmentLayers: 2 }), () => 0);
    expect(schedule.layerForward.parts.map((part) => part.layerSlot)).toEqual([0, 1]);
    expect(schedule.layerBackward.parts.map((part) => part.layerSlot)).toEqual([1, 0]);
    expect(count(schedule.layerBackward, 'gather')).toBe(1);
  });

  it('a single chunk has one slot everywhere: nothing follows it', () => {
    const { run, strategy } = smallContext('ulysses', 1);
    const { buffers } = buildSchedule(smallContext('ulysses', 1), () => 0);
    const rows = buffers.filter(({ shape }) => shape.length > 1).map(({ shape }) => shape[0]);
    expect(new Set(rows)).toEqual(new Set([strategy.localChunkTokens, run.seqLen]));
  });
});
