import { describe, expect, it, test } from 'vitest';
import { layoutSchedule } from '../../src/address/layout.js';
import type { Attribute, Op } from '../../src/schedule/op.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { RECOMPUTE } from '../../src/spec/strategy.js';
import { type VerifyInput, verifySchedule } from '../../src/verify/verify.js';
import { type Small, smallContext, smallSchedule } from './context.js';

const GROUPS = 2;
const HEADS: Small = { headGroups: GROUPS, model: { numHeads: 8, numKvHeads: 4 } };

function planOf(more: Small): VerifyInput {
  const context = smallContext('auto', 3, { ...HEADS, ...more });
  const { model, parameters, run } = context;
  const schedule: Schedule = layoutSchedule(smallSchedule('auto', 3, { ...HEADS, ...more }));
  return { ...schedule, run, numLayers: model.numLayers, windows: model.windows, parameters, classOf: model.code.classOf, tied: false };
}

/** Attributes of ops of a kind, one after the other. */
function attributesOf({ sections, attributes }: VerifyInput, section: string, kind: Op['kind']): readonly (Attribute | undefined)[] {
  const ops = sections.find(({ name }) => name === section)?.ops ?? [];
  return ops.filter((op) => op.kind === kind).map(({ attribute }) => (attribute === undefined ? undefined : attributes[attribute]));
}

/** Ops of a kind get the attribute that `change` makes of theirs. */
function withHeads(plan: VerifyInput, kind: Op['kind'], change: (attribute: Attribute, n: number) => Attribute): VerifyInput {
  const attributes = [...plan.attributes];
  let n = 0;
  const toOp = (op: Op): Op => {
    if (op.kind !== kind || op.attribute === undefined) return op;
    const changed = change(plan.attributes[op.attribute] as Attribute, n++);
    return { ...op, attribute: attributes.push(changed) - 1 };
  };
  return { ...plan, sections: plan.sections.map((section) => ({ ...section, ops: section.ops.map(toOp) })), attributes };
}

describe('heads in groups', () => {
  test.each([
    { attentionOutput: RECOMPUTE },
    { attentionOutput: RECOMPUTE, hiddenGradients: 'host' },
    { attentionOutput: 'hbm' },
    { attentionOutput: 'disk', segmentLayers: 2 },
    { attentionOutput: 'host', keyValues: 'host', keyValueGradients: 'host', hiddenGradients: 'host', kvTileChunks: 2 },
  ] satisfies readonly Small[])('are legal: %o', (more) => {
    expect(verifySchedule(planOf(more))).toEqual([]);
  });

  it('have keys, values and gradients of one group alone, and outputs of all', () => {
    const bytesOf = (more: Small): ReadonlyMap<string, number> =>
      new Map(planOf({ attentionOutput: 'hbm', ...more }).buffers.map(({ name, instanceBytes }) => [name, instanceBytes]));
    const [whole, cut] = [bytesOf({ headGroups: 1 }), bytesOf({})];
    for (const name of ['k', 'v', 'dk', 'dv', 'q', 'dq']) expect(whole.get(name)).toBe(GROUPS * (cut.get(name) ?? 0));
    for (const name of ['o.saved', 'lse.saved']) expect(whole.get(name)).toBe(cut.get(name));
  });

  it('are attended to group after group, and projected back with each', () => {
    const plan = planOf({ attentionOutput: 'hbm' });
    for (const [section, kind] of [
      ['layerForward', 'attn'],
      ['layerBackward', 'attnBwd'],
      ['layerBackward', 'preBwd'],
    ] as const) {
      const groups = attributesOf(plan, section, kind).map((attribute) => attribute?.heads?.group);
      expect(groups.length % GROUPS).toBe(0);
      expect(groups).toEqual(groups.map((_, n) => Math.floor((n * GROUPS) / groups.length)));
    }
    expect(attributesOf(plan, 'layerBackward', 'postBwd')).toEqual([undefined, undefined, undefined]);
  });

  const whole: Attribute = { heads: { groups: GROUPS } };
  test.each([
    [
      'a group that nothing attends with',
      'attn',
      { heads: { groups: 3, group: 1 } },
      /works on one of 3 groups of heads, and no attn on group 0/,
    ],
    ['a group twice', 'preBwd', { heads: { groups: GROUPS, group: 0 } }, /and no preBwd on group 1/],
    ['one group of one', 'attn', { heads: { groups: 1, group: 0 } }, /has group 0 of 1 groups of heads/],
    ['a group beyond the last', 'attn', { heads: { groups: GROUPS, group: GROUPS } }, /has group 2 of 2 groups of heads/],
    ['attention to all groups', 'attn', whole, /reads 3 views and writes 2, of all 2 groups of heads/],
    ['an exchange of three pairs for two groups', 'toHeads', whole, /reads 3 views and writes 3, of all 2 groups of heads/],
  ] as const)('%s is noticed', (_what, kind, heads, problem) => {
    const damaged = withHeads(planOf({ attentionOutput: 'hbm' }), kind, (attribute) => ({ ...attribute, ...heads }));
    expect(
      verifySchedule(damaged)
        .map((one) => one.problem)
        .join('\n'),
    ).toMatch(problem);
  });
});
