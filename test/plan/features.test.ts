import { describe, expect, it } from 'vitest';
import type { FusedKernels } from '../../src/catalog/fusedKernels.js';
import { decodePlan } from '../../src/plan/decode.js';
import { encodePlan, sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan, UnsealedPlan } from '../../src/plan/executionPlan.js';
import { FEATURE_NAMES, type Feature, featuresOf } from '../../src/plan/features.js';
import type { Attribute, Op, Section } from '../../src/schedule/op.js';
import { samplePlan } from './samplePlan.js';

/** What the sample has without any change. */
const SAMPLE: readonly Feature[] = ['rebuild', 'layer-classes', 'file-pool'];
const plan = samplePlan();

const withOps = (name: string, change: (op: Op) => Op): UnsealedPlan => ({
  ...plan,
  sections: plan.sections.map((section): Section => (section.name === name ? { ...section, ops: section.ops.map(change) } : section)),
});

/** The sample with a further attribute for ops of one kind of `layerForward`. */
const withAttribute = (kind: string, attribute: Attribute, more: Partial<Op> = {}): UnsealedPlan => ({
  ...withOps('layerForward', (op) => (op.kind === kind ? { ...op, ...more, attribute: plan.attributes.length } : op)),
  attributes: [...plan.attributes, attribute],
});

const withTurns = (keep: (call: { readonly section: string; readonly layer?: number }) => boolean): UnsealedPlan => ({
  ...plan,
  programs: {
    train: { turns: plan.programs.train.turns.map((turn) => ({ ...turn, calls: turn.calls.filter(keep) })) },
  },
});

const bufferId = (name: string): number => plan.buffers.find((buffer) => buffer.name === name)?.id ?? -1;
const heads = (query: number[][], keyValue: number[][]): UnsealedPlan => ({
  ...plan,
  layout: { ...plan.layout, heads: { query, keyValue } },
});
const inPool = (names: readonly string[], pool: string): UnsealedPlan => ({
  ...plan,
  buffers: plan.buffers.map((buffer) => (names.includes(buffer.name) ? { ...buffer, pool } : buffer)),
});
const withKernels = (fused: Omit<FusedKernels, 'blockBytes'>): UnsealedPlan => ({
  ...plan,
  kernels: { ...plan.kernels, fused: { ...fused, blockBytes: 1 } },
});
const rows = { start: 0, end: 64 };
const region = { buffer: bufferId('wgradEmbed'), rows: { start: 0, end: 256 }, param: -1, index: 0 };

/** A fixture a feature: the sample with it, and the sample without it where it has it. */
const WITH: Readonly<Record<Feature, UnsealedPlan>> = {
  rebuild: plan,
  'layer-classes': plan,
  'file-pool': plan,
  'causal-rectangle': withOps('layerForward', (op) => (op.id === 7 ? { ...op, kv: rows } : op)),
  window: withAttribute('attn', { mask: { kind: 'window', window: 16 } }),
  tiles: withAttribute('post', { tiles: 2 }),
  'kv-tiles': withOps('layerBackward.1', (op) => {
    if (op.kind === 'copy') return { ...op, writes: [{ buffer: bufferId('k'), rows, param: -1, index: 0 }] };
    return op.kind === 'attnBwd' ? { ...op, kv: rows, attribute: 1 } : op;
  }),
  'kv-copies': heads([[0], [1]], [[0], [0]]),
  'padded-heads': heads(
    [
      [0, 1],
      [2, -1],
    ],
    [
      [0, 1],
      [2, -1],
    ],
  ),
  'tied-region': withOps('lossForward', (op) =>
    op.kind === 'loss' ? { ...op, accumulates: [...op.accumulates.slice(0, 2), region] } : op,
  ),
  frozen: { ...plan, parameters: { ...plan.parameters, embed: plan.parameters.embed.map((one) => ({ ...one, trainable: false })) } },
  lora: { ...plan, model: { ...plan.model, lora: { r: 4 } } },
  evaluate: { ...plan, programs: { ...plan.programs, evaluate: { turns: plan.programs.train.turns.slice(0, 1) } } },
  'hidden-gradient-offload': inPool(['dx'], 'host'),
  packing: { ...plan, run: { ...plan.run, packing: true } },
  'loss-inplace': withKernels({ loss: 'inplace' }),
  'merge-lerp': withKernels({ merge: 'lerp' }),
  'norm-vectornorm': withKernels({ norm: 'vectornorm' }),
  'rope-addcmul': withKernels({ rope: 'addcmul' }),
  'elementwise-inplace': withKernels({ elementwise: 'inplace' }),
  'weight-gradient-blocks': withKernels({ weightGradient: 'blocks' }),
  'weight-gradient-addmm': withKernels({ weightGradient: 'addmm' }),
  'head-groups': withAttribute('post', { heads: { groups: 2, group: 1 } }),
};
const WITHOUT: Partial<Readonly<Record<Feature, UnsealedPlan>>> = {
  rebuild: withTurns(({ section, layer }) => section !== 'layerRebuild' && !(layer === 0 && ['gather', 'release'].includes(section))),
  'layer-classes': withTurns(({ section }) => section !== 'layerForward.1'),
  'file-pool': inPool(['o.saved@disk', 'lse.saved@disk'], 'host'),
};

describe('features', () => {
  it('of the sample are those it was written for, and travel with it', () => {
    expect(plan.features).toEqual(SAMPLE);
    expect(decodePlan(encodePlan(plan)).features).toEqual(SAMPLE);
  });

  it.each(FEATURE_NAMES)('%s is found in its fixture, and nothing else is', (name) => {
    const others = SAMPLE.filter((feature) => feature !== name);
    expect(featuresOf(WITH[name])).toEqual(FEATURE_NAMES.filter((feature) => feature === name || others.includes(feature)));
    expect(featuresOf(WITHOUT[name] ?? plan)).toEqual(others);
  });

  it.each([
    ['attention over several chunks that lie at hand', withOps('layerForward', (op) => (op.id === 5 ? { ...op, kv: rows } : op))],
    ['one tile', withAttribute('post', { tiles: 1 })],
    ['a pool that nothing lies in', { ...plan, pools: [...plan.pools, { name: 'shelf', kind: 'file', bytes: 0 }] }],
  ] as const)('%s is none', (_what, changed: UnsealedPlan) => {
    expect(featuresOf(changed)).toEqual(SAMPLE);
  });

  it('do not take a padded head for a copy', () => {
    expect(featuresOf(heads([[0], [-1]], [[-1], [-1]]))).toEqual([...SAMPLE, 'padded-heads']);
  });

  it('are computed from content, whatever the plan says of itself', () => {
    const lying: ExecutionPlan = { ...plan, features: ['window'] };
    expect(sealPlan(lying)).toEqual(plan);
  });
});
