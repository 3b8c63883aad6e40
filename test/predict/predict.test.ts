import { describe, expect, it, test } from 'vitest';
import { opCosts } from '../../src/predict/cost.js';
import { predictRun, type PredictInput } from '../../src/predict/predict.js';
import { simulateSection } from '../../src/predict/timeline.js';
import { exchangeSeconds, ringSeconds } from '../../src/predict/links.js';
import { gatherSeconds } from '../../src/predict/zeroCosts.js';
import { sectionNamed } from '../../src/schedule/schedule.js';
import type { Bend } from '../spec/inputs.js';
import { smallPlan } from './smallPlan.js';

const H100 = { gpu: 'h100-80gb' };

/** On a GPU whose host issues at no cost: this plan's ops are too small for a real one. */
function onGpu(bend: Bend = {}): PredictInput {
  const plan = smallPlan({ cluster: H100, ...bend });
  const rates = { ...plan.cluster.rates, hostSecondsPerOp: 0, hostSecondsPerKernel: 0 };
  return { ...plan, cluster: { ...plan.cluster, rates } };
}

const sumOf = (input: ReturnType<typeof smallPlan>, name: string): number =>
  sectionNamed(input.sections, name).ops.reduce((total, op) => total + opCosts(input)(op).seconds, 0);

describe('predictRun', () => {
  it('one optimizer step is its sections times their runs, and the fixed overhead', () => {
    const input = smallPlan({ deepspeed: { zero_optimization: { stage: 3 }, gradient_accumulation_steps: 3 } });
    const prediction = predictRun(input);
    expect(prediction.sections.map(({ name, runs }) => [name, runs])).toEqual([
      ['embedForward', 3],
      ['layerForward', 12],
      ['lossForward', 3],
      ['lossBackward', 3],
      ['layerBackward', 12],
      ['embedBackward', 3],
      ['gather', 36],
      ['reduce', 18],
      ['optimizerStep', 1],
    ]);
    const { stepOverheadSeconds } = input.cluster.rates;
    const sum = prediction.sections.reduce((total, { runs, makespanSeconds }) => total + runs * makespanSeconds, stepOverheadSeconds);
    expect(prediction.stepSeconds).toBeCloseTo(sum, 9);
    expect(prediction.tokensPerSecond).toBeCloseTo((3 * 1024) / sum, 4);
  });

  it('on the CPU device one thread does everything: a section takes the sum of its ops, every copy is exposed', () => {
    const input = smallPlan();
    const { sections, exposedCopySeconds, hostBoundSeconds } = predictRun(input);
    for (const name of ['layerForward', 'layerBackward']) {
      expect(sections.find((section) => section.name === name)?.makespanSeconds).toBeCloseTo(sumOf(input, name), 12);
    }
    const { launchSeconds, hostSecondsPerOp, h2dBytes } = input.cluster.rates;
    const copies = 3 * 4 * (hostSecondsPerOp + launchSeconds + (256 * 64 * 4) / h2dBytes);
    expect(exposedCopySeconds).toBeCloseTo(copies, 9);
    expect(hostBoundSeconds).toBe(0);
    const gather = sections.find(({ name }) => name === 'gather');
    expect(gather?.makespanSeconds).toBeGreaterThan(0);
  });

  it('streams overlap on a GPU: less than the sum, no less than the busiest stream', () => {
    const input = onGpu();
    const section = predictRun(input).sections.find(({ name }) => name === 'layerBackward');
    const busy = Object.values(section?.busySeconds ?? {});
    expect(section?.makespanSeconds).toBeLessThan(sumOf(input, 'layerBackward') * 0.999);
    expect(section?.makespanSeconds).toBeGreaterThanOrEqual(Math.max(...busy) * (1 - 1e-9));
    expect(section?.busySeconds).toMatchObject({ d2h: 0, comm: 0 });
  });

  it('small ops are bound by the host, and a plan says so', () => {
    const plan = smallPlan({ cluster: H100 });
    const bound = predictRun(plan);
    expect(bound.hostBoundSeconds).toBeGreaterThan(0);
    const free = predictRun(onGpu());
    expect(free.hostBoundSeconds).toBe(0);
    expect(bound.stepSeconds - free.stepSeconds).toBeCloseTo(bound.hostBoundSeconds, 12);
    const slow = { ...plan.cluster.rates, stepOverheadSeconds: 0 };
    expect(predictRun({ ...plan, cluster: { ...plan.cluster, rates: slow } }).isHostBound).toBe(true);
    expect(bound.isHostBound).toBe(bound.hostBoundSeconds > 0.05 * bound.stepSeconds);
  });

  it('counts ops and copied bytes of a whole step, ZeRO among them', () => {
    const { byKind, copiedBytes } = predictRun(
      smallPlan({ deepspeed: { zero_optimization: { stage: 3 }, gradient_accumulation_steps: 2 } }),
    );
    expect(byKind.attnBwd?.count).toBe(2 * 4);
    expect(byKind.copy?.count).toBe(2 * 3 * 4);
    expect([byKind.gather?.count, byKind.reduce?.count, byKind.optimizerStep?.count]).toEqual([2 * 12, 2 * 6, 1]);
    expect(byKind.gather?.seconds).toBeGreaterThan(0);
    expect(copiedBytes).toEqual({ h2d: 2 * 2 * 4 * 256 * 64 * 4, d2h: 2 * 4 * 256 * 64 * 4 });
  });

  it('the optimizer updates the parameters a rank owns, and in stages 1 and 2 gathers what the others updated', () => {
    const step = (stage: number) => {
      const input = smallPlan({ deepspeed: { zero_optimization: { stage } } });
      const { rates, numRanks } = input.cluster;
      const { seconds = 0 } = predictRun(input).byKind.optimizerStep ?? {};
      const owned = stage === 0 ? input.parameters.numModelParameters : input.parameters.numModelParameters / numRanks;
      return { beyondUpdate: seconds - rates.launchSeconds - owned * rates.optimizerSecondsPerParameter, input };
    };
    for (const stage of [0, 3]) expect(step(stage).beyondUpdate).toBeCloseTo(0, 12);
    for (const stage of [1, 2]) {
      const { beyondUpdate, input } = step(stage);
      const bytes = (4 * input.parameters.numModelParameters * (input.cluster.numRanks - 1)) / input.cluster.numRanks;
      expect(beyondUpdate).toBeCloseTo(input.cluster.rates.commLatencySeconds + bytes / input.cluster.rates.commBytes, 12);
    }
  });

  it('an optimizer on the host takes its own time, its gradients go there and its weights come back', () => {
    const kinds = (zero: object, more: object = {}) =>
      predictRun(onGpu({ deepspeed: { zero_optimization: { stage: 3, ...zero }, ...more } })).byKind;
    const [here, there] = [kinds({}), kinds({ offload_optimizer: { device: 'cpu' } })];
    const { rates, numRanks } = onGpu().cluster;
    const { numTrainedParameters } = onGpu().parameters;
    const owned = numTrainedParameters / numRanks;
    const { offloadedOptimizerSecondsPerParameter, optimizerSecondsPerParameter, h2dBytes, d2hBytes } = rates;
    const w = 2;
    const update = owned * (offloadedOptimizerSecondsPerParameter + w / h2dBytes - optimizerSecondsPerParameter);
    expect((there.optimizerStep?.seconds ?? 0) - (here.optimizerStep?.seconds ?? 0)).toBeCloseTo(update, 12);
    expect(update).toBeGreaterThan(0);
    const gradients = owned * (w / d2hBytes + w / h2dBytes + 4 / d2hBytes);
    expect((there.reduce?.seconds ?? 0) - (here.reduce?.seconds ?? 0)).toBeCloseTo(gradients, 12);
    const torchAdam = { optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } } };
    expect(kinds({ offload_optimizer: { device: 'cpu' } }, torchAdam).optimizerStep?.seconds).toBeGreaterThan(
      there.optimizerStep?.seconds ?? Number.POSITIVE_INFINITY,
    );
  });

  it('the same ranks on more nodes take longer', () => {
    const step = (ranksPerNode: number): number => predictRun(onGpu({ cluster: { ...H100, ranksPerNode } })).stepSeconds;
    expect(step(2)).toBeGreaterThan(step(4));
    expect(step(1)).toBeGreaterThan(step(2));
  });

  it('gathers that may be prefetched are exposed only as far as they are longer than the turn', () => {
    const step = (prefetch: number) =>
      predictRun(onGpu({ deepspeed: { zero_optimization: { stage: 3, stage3_prefetch_bucket_size: prefetch } } }));
    const exposed = (prefetch: number): number => step(prefetch).sections.find(({ name }) => name === 'gather')?.makespanSeconds ?? 0;
    expect(exposed(0)).toBeGreaterThan(exposed(1000));
    expect(step(0).stepSeconds).toBeGreaterThan(step(1000).stepSeconds);
  });

  it('reductions come with every backward turn from stage 2 on, once at the end below', () => {
    const reduce = (stage: number) =>
      predictRun(smallPlan({ deepspeed: { zero_optimization: { stage }, gradient_accumulation_steps: 2 } })).byKind.reduce;
    expect([0, 1, 2, 3].map((stage) => reduce(stage)?.count)).toEqual([1, 1, 12, 12]);
    expect(reduce(0)?.seconds).toBeCloseTo(2 * (reduce(1)?.seconds ?? 0), 12);
  });

  it('MFU: four conventions; recompute shows in hardware FLOPs only', () => {
    const input = smallPlan();
    const { mfu, stepSeconds } = predictRun(input);
    expect(mfu.fullModel).toBeGreaterThan(mfu.causalModel);
    expect(mfu.fullHardware).toBeGreaterThan(mfu.causalHardware);
    const attention = (6 * 1024 * 64 * 4 * 1024) / 4;
    expect(mfu.fullModel - mfu.causalModel).toBeCloseTo(attention / (stepSeconds * input.cluster.peakFlops), 9);
    const tied = { ...input, model: { ...input.model, tieWordEmbeddings: true } };
    const tiedStep = predictRun(tied);
    expect(tiedStep.mfu.causalModel * tiedStep.stepSeconds).toBeCloseTo(mfu.causalModel * stepSeconds, 9);
    const windows = input.model.windows.map(() => 8);
    expect(predictRun({ ...input, model: { ...input.model, windows } }).mfu.causalModel).toBeLessThan(mfu.causalModel);
  });

  it('is the same for the same input', () => {
    expect(predictRun(smallPlan({ cluster: H100 }))).toEqual(predictRun(smallPlan({ cluster: H100 })));
  });
});

describe('costs', () => {
  it('of an exchange are those of the head-sharded side, of which a rank keeps its share', () => {
    const input = smallPlan({ cluster: H100 });
    const [, , toHeads, , toSequence] = sectionNamed(input.sections, 'layerForward').ops.map((op) => opCosts(input)(op).seconds);
    const { launchSeconds, commLatencySeconds, commBytes, memoryBytes } = input.cluster.rates;
    const bytes = 1024 * 2 * 8 * 4;
    const packed = 256 * 8 * 8 * 4 + bytes;
    expect(toHeads).toBeCloseTo(2 * launchSeconds + packed / memoryBytes + commLatencySeconds + (bytes * 3) / 4 / commBytes, 12);
    expect(toSequence).toBe(toHeads);
  });

  it('of products and element-wise kernels add up, and each kernel is launched', () => {
    const input = smallPlan({ cluster: H100 });
    const ops = sectionNamed(input.sections, 'layerForward').ops;
    const post = ops.find(({ kind }) => kind === 'post');
    if (post === undefined) throw new Error('no op');
    const { rates } = input.cluster;
    const at = (change: Partial<typeof rates>): number =>
      opCosts({ ...input, cluster: { ...input.cluster, rates: { ...rates, ...change } } })(post).seconds;
    const part = (change: Partial<typeof rates>): number => at({}) - at(change);
    const parts = [{ matmulFlops: 1e300 }, { memoryBytes: 1e300 }, { launchSeconds: 0 }].map(part);
    expect(Math.min(...parts)).toBeGreaterThan(0);
    expect(parts.reduce((sum, seconds) => sum + seconds, 0)).toBeCloseTo(at({}), 15);
    const norm = 8;
    const others = 4 + 2 + 1 + 1 + 1;
    expect(part({ launchSeconds: 0 })).toBeCloseTo((norm + others) * rates.launchSeconds, 15);
  });

  it('of a copy are those of its link', () => {
    const input = smallPlan({ cluster: { ...H100, diskBytes: '1G' } });
    const [copy] = sectionNamed(input.sections, 'layerForward').ops;
    if (copy === undefined) throw new Error('no op');
    const { launchSeconds, diskReadBytes } = input.cluster.rates;
    expect(opCosts(input)({ ...copy, stream: 'read' }).seconds).toBeCloseTo(launchSeconds + (256 * 64 * 4) / diskReadBytes, 12);
    expect(opCosts(input)(copy).copiedBytes).toBe(256 * 64 * 4);
  });

  it('of attention are those of its kernel and head dim, and of a few keys more', () => {
    const input = smallPlan({ cluster: H100 });
    const attn = sectionNamed(input.sections, 'layerForward').ops.find(({ kind }) => kind === 'attn');
    if (attn === undefined) throw new Error('no op');
    const { rates } = input.cluster;
    const of = (change: Partial<typeof rates>, kernel = 'flash2'): number => {
      const kernels = { attn: kernel, attnBwd: kernel };
      const only = { ...rates, launchSeconds: 0, memoryBytes: 1e300, attentionHalfKeys: 0, ...change };
      return opCosts({ ...input, kernels, cluster: { ...input.cluster, rates: only } })(attn).seconds;
    };
    const row = (headDim: number, forwardFlops: number) => ({ kernel: 'flash2', headDim, forwardFlops, backwardFlops: 1 });
    const seconds = of({ attentionKernels: [row(8, 1e12)] });
    expect(of({ attentionKernels: [row(16, 5e12), row(8, 1e12), row(4, 3e12)] })).toBeCloseTo(seconds, 15);
    expect(of({ attentionKernels: [row(64, 2e12)] })).toBeCloseTo(seconds / 2, 15);
    expect(of({ attentionKernels: [row(8, 9e12)], attentionForwardFlops: 1e12 }, 'cpu_flash')).toBeCloseTo(seconds, 15);
    // 1,024 causal queries see 512.5 keys on the mean.
    expect(of({ attentionKernels: [row(8, 1e12)], attentionHalfKeys: 512.5 })).toBeCloseTo(2 * seconds, 15);
  });

  it('of collectives between nodes are those of their adapters, and never less than inside one', () => {
    const { cluster } = smallPlan({ cluster: H100 });
    const rates = {
      ...cluster.rates,
      commBytes: 100,
      gatherBytes: 100,
      commLatencySeconds: 0,
      interNodeBytes: 10,
      interNodeLatencySeconds: 0,
    };
    const links = (ranksPerNode: number) => ({ numRanks: 8, ranksPerNode, rates });
    const group = [0, 1, 2, 3, 4, 5, 6, 7];
    const exchange = (ranksPerNode: number, ranks = group): number =>
      exchangeSeconds(800, 1, links(ranksPerNode), { sequenceGroups: [ranks], heads: { query: [], keyValue: [] } });
    expect(exchange(8)).toBe((100 * 7) / 100);
    expect(exchange(4)).toBe((100 * 4) / 10);
    expect(exchange(4, [0, 1, 2, 3])).toBe((200 * 3) / 100);
    expect(exchange(1)).toBe((100 * 7) / 10);
    expect(ringSeconds(800, links(8), 'gatherBytes')).toBe(7);
    // Four adapters carry what the other node has.
    expect(ringSeconds(800, links(4), 'gatherBytes')).toBe(Math.max(7, 400 / 40));
    expect(ringSeconds(800, links(1), 'gatherBytes')).toBe(700 / 10);
  });

  it('a gather moves what others hold, and below stage 3 there is none', () => {
    const { cluster, run, parameters, model, deepspeed } = smallPlan();
    const input = { cluster, parameters, model, deepspeed };
    const { commLatencySeconds, commBytes } = cluster.rates;
    expect(gatherSeconds(1000, { ...input, run }, false)).toBeCloseTo(commLatencySeconds + (1000 * 4 * 3) / 4 / commBytes, 12);
    expect(gatherSeconds(1000, { ...input, run: { ...run, zeroStage: 2 } }, false)).toBe(0);
  });

  it('a second partition makes gathers those of a group, but for the forward of the first micro-step', () => {
    const { cluster, run, parameters, model } = smallPlan();
    const input = { cluster, run, parameters, model, deepspeed: { zero_optimization: { stage: 3, zero_hpz_partition_size: 2 } } };
    const { commLatencySeconds, commBytes } = cluster.rates;
    const ofGroup = (numRanks: number): number => commLatencySeconds + (1000 * 4 * (numRanks - 1)) / numRanks / commBytes;
    expect(gatherSeconds(1000, input, false)).toBeCloseTo(ofGroup(4), 12);
    expect(gatherSeconds(1000, input, true)).toBeCloseTo(ofGroup(2), 12);
  });

  it('streams of a section that the plan does not have are refused', () => {
    const input = smallPlan();
    expect(() => predictRun({ ...input, streams: ['compute', 'comm', 'h2d'] })).toThrow(/d2h, which is not one of compute, comm, h2d/);
  });
});

test('a section alone: times of its ops', () => {
  const input = smallPlan({ cluster: H100 });
  const { startSeconds, endSeconds, makespanSeconds } = simulateSection(sectionNamed(input.sections, 'layerForward'), input);
  expect(startSeconds.length).toBe(7);
  expect(startSeconds[1]).toBeGreaterThanOrEqual(endSeconds[0] ?? Number.POSITIVE_INFINITY);
  expect(makespanSeconds).toBe(Math.max(...endSeconds));
  const onCpu = smallPlan();
  expect(simulateSection(sectionNamed(onCpu.sections, 'layerForward'), onCpu).makespanSeconds).toBeCloseTo(
    sumOf(onCpu, 'layerForward'),
    12,
  );
});
