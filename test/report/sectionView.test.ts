import { describe, expect, it } from 'vitest';
import { sectionView, shortName } from '../../src/report/sectionView.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { STREAMS } from '../../src/schedule/op.js';
import type { PolicyName } from '../../src/spec/types.js';
import { smallContext } from '../schedule/context.js';

function viewOf(policy: PolicyName) {
  const context = smallContext(policy, 3);
  return { ...buildSchedule(context, () => 0), strategy: context.strategy };
}

describe('section view', () => {
  it('draws the outer loop of the fpdt backward over keys and values, ascending', () => {
    const turns = sectionView(viewOf('fpdt'), 'layerBackward')
      .split('\n')
      .filter((line) => line.startsWith('-- attention backward'));
    expect(turns).toEqual([0, 1, 2].map((chunk) => `-- attention backward: k, v of chunk ${chunk} (outer), q ascending (inner)`));
  });

  it('draws the descending backward over queries', () => {
    const turns = sectionView(viewOf('auto'), 'layerBackward')
      .split('\n')
      .filter((line) => line.startsWith('-- attention backward'));
    expect(turns).toEqual([2, 1, 0].map((chunk) => `-- attention backward: q of chunk ${chunk}`));
  });

  it('puts every op in the column of its stream, once and in order', () => {
    const plan = viewOf('fpdt');
    const lines = sectionView(plan, 'layerForward').split('\n');
    const head = lines.find((line) => line.includes('views and waits')) ?? '';
    const columns = STREAMS.map((stream) => head.indexOf(stream));
    const rows = lines.filter((line) => /^ +\d+ /.test(line));
    expect(rows).toHaveLength(plan.schedule.layerForward.ops.length);
    plan.schedule.layerForward.ops.forEach((op, i) => {
      const row = rows[i] ?? '';
      expect(Number.parseInt(row, 10)).toBe(op.id);
      expect(row.slice(columns[STREAMS.indexOf(op.stream)])).toMatch(new RegExp(`^${op.kind}\\b`));
    });
  });

  it('names ops by their chunks', () => {
    const plan = viewOf('fpdt');
    const names = plan.schedule.layerForward.ops.map((op) => shortName(op, plan));
    expect(names).toEqual(expect.arrayContaining(['pre 0', 'attn q2 k0', 'fetch k1', 'offload v0', 'toHeads 2', 'fetch x2', 'offload x0']));
    const auto = viewOf('auto');
    expect(auto.schedule.layerForward.ops.map((op) => shortName(op, auto))).toContain('attn q2 k0-1');
  });

  it('draws sections of one part without turns', () => {
    expect(sectionView(viewOf('auto'), 'embedForward')).toContain('embed 0');
  });
});
