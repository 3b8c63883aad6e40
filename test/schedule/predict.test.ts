import { describe, expect, it } from 'vitest';
import { layoutBuffers } from '../../src/plan/layout.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { costModel } from '../../src/schedule/cost.js';
import { type PredictInput, predictRun } from '../../src/schedule/predict.js';
import { simulateSection } from '../../src/schedule/simulate.js';
import type { ClusterSpec, PolicyName, RunSpec } from '../../src/spec/types.js';
import { CLUSTER, RATES, WORK } from '../plan/samplePlan.js';
import { smallContext } from './context.js';

function input(policy: PolicyName, cluster: Partial<ClusterSpec> = {}, run: Partial<RunSpec> = {}, segmentLayers = 1): PredictInput {
  const context = smallContext(policy, policy === 'ulysses' ? 1 : 4, { segmentLayers });
  const built = buildSchedule(context, () => 0);
  const { buffers } = layoutBuffers(built.buffers, built.schedule);
  return {
    ...context,
    run: { ...context.run, ...run },
    cluster: { ...CLUSTER, ...cluster },
    buffers,
    schedule: built.schedule,
    deepspeed: {},
    work: WORK,
  };
}

const layerSections = ({ schedule }: PredictInput) => [schedule.layerForward, schedule.layerBackward];

describe('predictRun', () => {
  it('one optimizer step is its sections times their runs, and the fixed overhead', () => {
    const prediction = predictRun(input('auto', {}, { gradientAccumulationSteps: 3 }, 2));
    expect(prediction.sections.map(({ name, runs }) => [name, runs])).toEqual([
      ['embedForward', 3],
      ['layerForward', 6],
      ['lossForwardBackward', 3],
      ['layerBackward', 6],
      ['embedBackward', 3],
      ['stepEnd', 1],
    ]);
    const sum = prediction.sections.reduce((total, { runs, makespanSeconds }) => total + runs * makespanSeconds, RATES.stepOverheadSeconds);
    expect(prediction.stepSeconds).toBeCloseTo(sum, 12);
    expect(prediction.tokensPerSecond).toBeCloseTo((3 * 256) / sum, 6);
  });

  it('counts ops and copied bytes of a whole step', () => {
    const fpdt = predictRun(input('fpdt'));
    const pairs = (4 * 5) / 2;
    expect(fpdt.byKind.attnBwd?.count).toBe(4 * pairs);
    expect(fpdt.byKind.optimizerStep?.count).toBe(1);
    expect(fpdt.byKind.gather?.count).toBe(2 * 4 + 2 + 2);
    expect(fpdt.copiedBytes.d2h).toBeGreaterThan(0);
    expect(fpdt.copiedBytes.h2d).toBeGreaterThan(fpdt.copiedBytes.d2h);
    expect(predictRun(input('auto')).copiedBytes).toEqual({ h2d: 0, d2h: 0 });
  });

  it("on the CPU device one thread does everything: a section takes the sum of its ops and of ZeRO's gathers", () => {
    const serial = input('fpdt', { device: 'cpu' });
    const cost = costModel(serial);
    const prediction = predictRun(serial);
    const gather = RATES.commLatencySeconds + (300 * 4 * 0.5) / RATES.commBytes;
    for (const section of layerSections(serial)) {
      const sum = section.ops.reduce((total, op) => total + cost.seconds(op), 0);
      expect(prediction.sections.find(({ name }) => name === section.name)?.makespanSeconds).toBeCloseTo(sum + gather, 12);
    }
    expect(prediction.stepSeconds).toBeGreaterThan(predictRun(input('fpdt')).stepSeconds);
  });

  it('streams overlap on a GPU: less than the sum, no less than the busiest stream; hidden copies cost nothing', () => {
    const overlapped = input('fpdt');
    for (const section of layerSections(overlapped)) {
      const { makespanSeconds, busySeconds } = simulateSection(section, costModel(overlapped), overlapped.buffers);
      const busy = Object.values(busySeconds);
      expect(makespanSeconds).toBeLessThan(busy.reduce((a, b) => a + b, 0));
      expect(makespanSeconds).toBeGreaterThanOrEqual(Math.max(...busy) * (1 - 1e-9));
    }
    const slowCompute = { ...RATES, memoryBytes: 1, matmulFlops: 1, attentionForwardFlops: 1, attentionBackwardFlops: 1 };
    const { exposedCopySeconds, stepSeconds } = predictRun(input('fpdt', { rates: slowCompute }));
    expect(exposedCopySeconds / stepSeconds).toBeLessThan(1e-4);
  });

  it('a faster link never makes a step slower, a shared one never faster', () => {
    const step = (rates: Partial<typeof RATES>): number => predictRun(input('fpdt', { rates: { ...RATES, ...rates } })).stepSeconds;
    expect(step({ h2dBytes: 4e8, d2hBytes: 2e8 })).toBeLessThan(step({}));
    expect(step({ duplexBytes: 1e8 })).toBeGreaterThan(step({}));
    expect(step({ duplexBytes: 1e12 })).toBe(step({}));
  });

  it('no ZeRO-3, no gathers; one rank, no communication at all', () => {
    const seconds = (run: Partial<RunSpec>, cluster: Partial<ClusterSpec> = {}): number =>
      predictRun(input('auto', { device: 'cpu', ...cluster }, run)).stepSeconds;
    expect(seconds({ zeroStage: 2 })).toBeLessThan(seconds({ zeroStage: 3 }));
    expect(predictRun(input('ulysses', { numRanks: 1 }, { sequenceParallelSize: 1 })).byKind.reduce?.seconds).toBe(RATES.launchSeconds);
  });

  it('MFU: full attention counts more than causal, and FLOPs of the plan are those of its ops', () => {
    const sample = input('auto');
    const { mfu, stepSeconds } = predictRun(sample);
    expect(mfu.fullModel).toBeGreaterThan(mfu.causalModel);
    expect(mfu.fullHardware).toBeGreaterThan(mfu.causalHardware);
    const ops = layerSections(sample).reduce((sum, { ops: all }) => sum + 4 * all.length, 0);
    const rest = ['embedForward', 'lossForwardBackward', 'embedBackward', 'stepEnd'] as const;
    const total = ops + rest.reduce((sum, name) => sum + sample.schedule[name].ops.length, 0);
    expect(mfu.causalHardware).toBeCloseTo((1000 * total) / (stepSeconds * CLUSTER.peakFlops), 9);
    const attention = 6 * 256 * 4 * 8 * 4 * (256 / 2);
    expect(mfu.fullModel - mfu.causalModel).toBeCloseTo(attention / (stepSeconds * CLUSTER.peakFlops), 9);
  });
});
