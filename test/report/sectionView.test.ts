import { describe, expect, it } from 'vitest';
import { drawOp } from '../../src/catalog/ops/index.js';
import { sectionView } from '../../src/report/sectionView.js';
import type { Op, Range, Section } from '../../src/schedule/op.js';
import { samplePlan } from '../plan/samplePlan.js';

const PLAN = samplePlan();
const turnsOf = (text: string): readonly string[] => text.split('\n').filter((line) => line.startsWith('--'));

/** A backward over 4 chunks of 32 tokens, its attention ops in this order of [q chunk, first k chunk, end]. */
function backwardOver(order: readonly (readonly [number, number, number])[], kvTileChunks = 1) {
  const chunks = (start: number, end: number): Range => ({ start: 32 * start, end: 32 * end });
  const views = { reads: [], writes: [], accumulates: [], waits: [], scratchBytes: 0, stream: 'compute' } as const;
  const ops = order.map(([q, k, end], id): Op => ({ id: id + 1, kind: 'attnBwd', tokens: chunks(q, q + 1), kv: chunks(k, end), ...views }));
  const section: Section = { name: 'layerBackward', params: [], ops: [{ id: 0, kind: 'postBwd', tokens: chunks(0, 1), ...views }, ...ops] };
  return { ...PLAN, sections: [section], strategy: { ...PLAN.strategy, numChunks: 4, kvTileChunks } };
}

describe('section view', () => {
  it('draws the descending backward over queries', () => {
    expect(turnsOf(sectionView(PLAN, 'layerBackward'))).toEqual([
      '-- attention backward: q of chunk 1',
      '-- attention backward: q of chunk 0',
    ]);
  });

  it('draws the ascending backward over keys and values, tile by tile', () => {
    const single = backwardOver([
      [0, 0, 1],
      [1, 0, 1],
      [2, 0, 1],
      [1, 1, 2],
      [2, 1, 2],
      [2, 2, 3],
    ]);
    expect(turnsOf(sectionView(single, 'layerBackward'))).toEqual([
      '-- backward of the output projection and the mlp, all chunks',
      ...[0, 1, 2].map((chunk) => `-- attention backward: k, v of chunk ${chunk} (outer), q ascending (inner)`),
    ]);
    const tiled = backwardOver(
      [
        [0, 0, 1],
        [1, 0, 1],
        [1, 1, 2],
        [2, 0, 2],
        [2, 2, 3],
        [3, 2, 4],
      ],
      2,
    );
    expect(turnsOf(sectionView(tiled, 'layerBackward')).slice(1)).toEqual([
      '-- attention backward: k, v of chunks 0-1 (outer), q ascending (inner)',
      '-- attention backward: k, v of chunks 2-3 (outer), q ascending (inner)',
    ]);
  });

  it.each(PLAN.sections.map(({ name }) => name))('puts every op of %s in the column of its stream, once and in order', (name) => {
    const lines = sectionView(PLAN, name).split('\n');
    const head = lines.find((line) => line.includes('views and waits')) ?? '';
    const columns = new Map(PLAN.streams.map((stream) => [stream, head.indexOf(` ${stream} `) + 1]));
    const rows = lines.filter((line) => /^ +\d+ /.test(line));
    const ops = PLAN.sections.find((section) => section.name === name)?.ops ?? [];
    const names = PLAN.buffers.map((buffer) => buffer.name);
    expect(rows).toHaveLength(ops.length);
    for (const [i, op] of ops.entries()) {
      const row = rows[i] ?? '';
      expect(Number.parseInt(row, 10)).toBe(op.id);
      expect(row.slice(columns.get(op.stream))).toMatch(new RegExp(`^${op.kind}\\b`));
      expect(row).toContain(drawOp(op, 32, names));
    }
  });

  it('says what a section is called with, how often, and what an op waits for', () => {
    const text = sectionView(PLAN, 'layerForward.1');
    expect(text.split('\n')[0]).toBe(
      'layerForward.1(x, y, saved), policy auto: 2 chunks of 32 tokens, 18 ops (10 compute, 4 comm, 2 d2h, 2 write), called once a micro-step',
    );
    expect(text).toMatch(/attn q1 k0 .* mask full q\[32:64\) k\[0:32\) v\[0:32\) -> oPart\[0:32\) lsePart\[0:32\) after 3$/m);
    expect(text).toMatch(/copy .* o\.staged@host\[0:32\) .* -> o\.saved@disk#saved\+1\[0:32\) lse\.saved@disk#saved\+1\[0:32\) after 16$/m);
  });

  it('draws sections of one op without turns', () => {
    expect(sectionView(PLAN, 'optimizerStep')).toMatch(/optimizerStep\(\), .*\n\n.*\n +0 {2}optimizerStep/);
    expect(turnsOf(sectionView(PLAN, 'embedForward'))).toEqual([]);
    expect(() => sectionView(PLAN, 'nap')).toThrow(RangeError);
  });
});
