/** A machine of known rates, measured: the table made of what its workers would tell has those rates. */
import { beforeAll, describe, expect, it } from 'vitest';
import { parseCluster } from '../../src/catalog/index.js';
import { CODE_NAMES, isCodeName, opSizes, OP_ROWS } from '../../src/catalog/ops/index.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { opCosts } from '../../src/predict/cost.js';
import { opRows, workOfKernel } from '../../src/predict/kernelSeconds.js';
import type { Probe } from '../../src/predict/measured/probe.js';
import { measuredRates } from '../../src/predict/measured/rates.js';
import { waitRates } from '../../src/predict/measured/waits.js';
import { planSummary } from '../../src/plan/summary.js';
import { predictRun } from '../../src/predict/predict.js';
import type { ClusterSpec, KernelRate, Rates } from '../../src/spec/types.js';
import { planRun } from '../../src/strategy/planRun.js';
import { probePlans } from '../../src/strategy/probePlans.js';

const MODEL = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 128,
  max_position_embeddings: 4096,
};
const base = parseCluster({ gpus: 2, gpu: 'cpu' });
const truth: Rates = {
  ...base.rates,
  attentionKernels: [
    { kernel: 'cpu_flash', headDim: 16, forwardFlops: 3e9, backwardFlops: 2e9, measured: { forwardMaskKeys: 20, backwardMaskKeys: 30 } },
  ],
  h2dBytes: 7e8,
  d2hBytes: 6e8,
  launchSeconds: 0,
  hostSecondsPerOp: 0,
  turnWaitSeconds: 3e-4,
  rankWaitSeconds: 2e-4,
  rankSkew: 0.05,
  zeroGatherSeconds: 2e-3,
  zeroReduceSeconds: 3e-3,
  zeroReleaseSeconds: 1e-4,
  optimizerStepSeconds: 4e-3,
  optimizerSecondsPerParameter: 5e-9,
  offloadedOptimizerSecondsPerParameter: 5e-9,
  stepOverheadSeconds: 0,
  turnOverheadSeconds: 1e-3,
};
const machine: ClusterSpec = { ...base, rates: truth };

let probes: readonly Probe[];
let found: ReturnType<typeof measuredRates>;
beforeAll(async () => {
  const plans = await probePlans({ model: MODEL, cluster: machine, chunkTokens: 256 });
  probes = plans.map((plan) => ({ plan, numbers: told(plan) }));
  const { h2dBytes: _, d2hBytes: __, ...apart } = truth;
  found = measuredRates({ probes, apart: numbersOnly(apart) }, base.rates);
});

/** Told by a machine of which some rates are others. */
function probesWith(rates: Partial<Rates>): readonly Probe[] {
  return probes.map(({ plan }) => ({ plan, numbers: told(plan, { ...truth, ...rates }) }));
}

/** Seconds of exchanges after much work times one factor, after little times another. */
function skewed(rates: Partial<Rates>, much: number, little: number): readonly Probe[] {
  return probesWith(rates).map(({ plan, numbers }) => ({
    plan,
    numbers: Object.fromEntries(
      Object.entries(numbers).map(([name, value]) => {
        const [, section, number] = /^op\/(\w+)\/(\d+)\/seconds$/.exec(name) ?? [];
        const kind = plan.sections.find((one) => one.name === section)?.ops[Number(number)]?.kind;
        return [name, kind === 'toSequence' ? much * value : kind === 'toHeads' ? little * value : value];
      }),
    ),
  }));
}

/** What workers on the machine would say of a step: products run twice as fast as the formula, element-wise kernels three times. */
function told(plan: Probe['plan'], rates = truth): Readonly<Record<string, number>> {
  const numbers: Record<string, number> = { idle: 1e-3 * plan.programs.train.turns.length };
  const note = (name: string, count: number, seconds: number): void => {
    numbers[`${name}/count`] = (numbers[`${name}/count`] ?? 0) + count;
    numbers[`${name}/seconds`] = (numbers[`${name}/seconds`] ?? 0) + seconds;
  };
  const sizes = opSizes({ ...plan, device: 'cpu' });
  const costs = opCosts({ ...plan, cluster: { ...machine, rates } });
  for (const turn of plan.programs.train.turns) {
    for (const call of turn.calls.filter(({ owner }) => owner === 'plan')) {
      const ops = plan.sections.find(({ name }) => name === call.section)?.ops ?? [];
      for (const [number, op] of ops.entries()) {
        if (OP_ROWS[op.kind].external) continue;
        const attribute = op.attribute === undefined ? undefined : plan.attributes[op.attribute];
        note(`op/${call.section}/${number}`, 1, costs(op).seconds);
        for (const name of CODE_NAMES.filter((code) => isCodeName(op.kind) && code === op.kind)) {
          const { rows, tiles } = opRows(op, attribute);
          for (const [index, one] of (sizes.code.codes(name)[0]?.code.instructions ?? []).entries()) {
            const code = sizes.code.codes(name)[0]?.code;
            if (code === undefined) continue;
            const work = sizes.code.instructionWork(one, code, rows);
            note(`code/${name}/0/${index}/${rows}`, tiles, (tiles * workOfKernel(work)) / speedOf(work));
          }
        }
      }
    }
  }
  const kinds = predictRun({ ...plan, cluster: { ...machine, rates } }).byKind;
  for (const [kind, { count, seconds }] of Object.entries(kinds)) note(`kind/${kind}`, count, seconds);
  note('adam', 1, (5e-9 * plan.parameters.numTrainedParameters) / 2);
  return numbers;
}

function speedOf({ matmulFlops }: { readonly matmulFlops: number }): number {
  return matmulFlops > 0 ? 2 * truth.matmulFlops : 3 * truth.memoryBytes;
}

function numbersOnly(rates: object): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(rates).filter(([, value]) => typeof value === 'number')) as Record<string, number>;
}

describe('rates of what workers measured', () => {
  it('are those of products and element-wise kernels, by shape', () => {
    expect(found.rates.matmulFlops / truth.matmulFlops).toBeCloseTo(2, 9);
    expect(found.rates.memoryBytes / truth.memoryBytes).toBeCloseTo(3, 9);
    const of = (name: string): readonly KernelRate[] => found.rates.kernelRates.filter(({ kernel }) => kernel === name);
    expect(new Set(of('linear').map(({ rows }) => rows))).toEqual(new Set([32, 128]));
    for (const { workPerSecond } of [...of('linear'), ...of('linearBwd')]) expect(workPerSecond / truth.matmulFlops).toBeCloseTo(2, 9);
    for (const { workPerSecond } of [...of('rope'), ...of('rmsnormBwd')]) expect(workPerSecond / truth.memoryBytes).toBeCloseTo(3, 9);
    expect(of('merge').length).toBeGreaterThan(0);
    expect([of('attn'), of('toHeads'), of('copy')]).toEqual([[], [], []]);
  });

  it('are those of attention, with the keys that a mask costs', () => {
    const [row] = found.rates.attentionKernels;
    expect(row).toMatchObject({ kernel: 'cpu_flash', headDim: 16 });
    expect((row?.forwardFlops ?? 0) / 3e9).toBeCloseTo(1, 6);
    expect((row?.backwardFlops ?? 0) / 2e9).toBeCloseTo(1, 6);
    expect(row?.measured?.forwardMaskKeys).toBeCloseTo(20, 4);
    expect(row?.measured?.backwardMaskKeys).toBeCloseTo(30, 4);
  });

  it('leave those of kernels that were not run as they are', () => {
    const other = { kernel: 'flash2', headDim: 128, forwardFlops: 5e9, backwardFlops: 4e9 };
    const old = { ...other, kernel: 'cpu_flash' };
    const { rates } = measuredRates({ probes, apart: {} }, { ...base.rates, attentionKernels: [old, other] });
    expect(rates.attentionKernels).toEqual([...found.rates.attentionKernels, other]);
  });

  it('are those of copies, of ZeRO, of the optimizer and of the turns', () => {
    for (const name of ['h2dBytes', 'd2hBytes', 'zeroGatherSeconds', 'zeroReduceSeconds', 'zeroReleaseSeconds'] as const)
      expect(found.rates[name] / truth[name], name).toBeCloseTo(1, 6);
    for (const name of ['optimizerStepSeconds', 'optimizerSecondsPerParameter', 'turnOverheadSeconds'] as const)
      expect(found.rates[name] / truth[name], name).toBeCloseTo(1, 6);
    expect(found.rates.stepOverheadSeconds).toBe(0);
  });

  it('say how ranks wait for each other', () => {
    // Told of work at the rates of the formula; the same work is shorter at those found.
    const planned = predictRun({ ...(probes[0]?.plan as ExecutionPlan), cluster: { ...machine, rates: found.rates } }).byKind;
    for (const kind of ['toHeads', 'toSequence'] as const) {
      const ratio = (planned[kind]?.seconds ?? 0) / (probes[0]?.numbers[`kind/${kind}/seconds`] ?? 0);
      expect(Math.abs(ratio - 1), kind).toBeLessThan(0.1);
    }
  });

  it.each([
    { turnWaitSeconds: 3e-4, rankWaitSeconds: 2e-4, rankSkew: 0.05 },
    { turnWaitSeconds: 0, rankWaitSeconds: 0, rankSkew: 0.05 },
    { turnWaitSeconds: 0, rankWaitSeconds: 2e-4, rankSkew: 0 },
    { turnWaitSeconds: 3e-4, rankWaitSeconds: 0, rankSkew: 0 },
    { turnWaitSeconds: 0, rankWaitSeconds: 0, rankSkew: 0 },
  ])('tell waits apart: $turnWaitSeconds s of a turn, $rankWaitSeconds s of each, $rankSkew of the work', (waits) => {
    const rates = waitRates(probesWith(waits), truth);
    expect(rates.turnWaitSeconds).toBeCloseTo(waits.turnWaitSeconds, 9);
    expect(rates.rankWaitSeconds).toBeCloseTo(waits.rankWaitSeconds, 9);
    expect(rates.rankSkew).toBeCloseTo(waits.rankSkew, 6);
  });

  it('never are below nothing where ranks wait', () => {
    const waits = { turnWaitSeconds: 0, rankWaitSeconds: 2e-4, rankSkew: 0.05 };
    const little = waitRates(skewed(waits, 1 / 3, 6), truth);
    expect(little).toMatchObject({ rankSkew: 0 });
    expect(little.rankWaitSeconds).toBeGreaterThan(0);
    const much = waitRates(skewed({ ...waits, rankWaitSeconds: 0 }, 2, 0), truth);
    expect(much).toMatchObject({ rankWaitSeconds: 0, turnWaitSeconds: 0 });
    expect(much.rankSkew).toBeGreaterThan(0);
  });

  it('are those of links as ZeRO uses them, where they were slower alone', () => {
    const apart = { ...numbersOnly(truth), gatherBytes: truth.gatherBytes / 2, reduceBytes: truth.reduceBytes / 3 };
    const { rates } = measuredRates({ probes: probesWith({ zeroGatherSeconds: 0, zeroReduceSeconds: 0 }), apart }, base.rates);
    expect(rates.gatherBytes / truth.gatherBytes).toBeCloseTo(1, 6);
    expect(rates.reduceBytes / truth.reduceBytes).toBeCloseTo(1, 6);
    expect([rates.zeroGatherSeconds, rates.zeroReduceSeconds]).toEqual([expect.closeTo(0, 9), expect.closeTo(0, 9)]);
    const none = probesWith({ commLatencySeconds: 0, zeroGatherSeconds: 0, gatherBytes: Number.POSITIVE_INFINITY });
    expect(measuredRates({ probes: none, apart }, base.rates).rates.gatherBytes).toBe(10 * apart.gatherBytes);
  });

  it('are tagged, and what was not measured is not said to be', async () => {
    expect(found.origins).toMatchObject({ matmulFlops: 'measured', kernelRates: 'measured', rankSkew: 'measured' });
    const { origins } = measuredRates({ probes, apart: {} }, base.rates);
    expect(origins).toMatchObject({ interNodeBytes: 'assumed', commBytes: 'assumed', memoryBytes: 'measured' });
    const cluster = { ...machine, ratesProvenance: 'measured', rates: found.rates, rateOrigins: origins };
    const plan = await planRun({ model: MODEL, cluster, run: { seqLen: 1024, numChunks: 4 } });
    expect(plan.prediction.rateOrigins).toMatchObject({ matmulFlops: 'measured', commBytes: 'assumed' });
    expect(plan.prediction.rateOrigins).not.toHaveProperty('stepOverheadSeconds');
    const summary = planSummary(plan);
    expect(summary).toMatch(/^Rates {7}measured: .*matmulFlops/m);
    expect(summary).toMatch(/^ {12}assumed: .*commBytes/m);
  });

  it('refuse what is not of the plan', () => {
    const [probe] = probes as readonly [Probe, ...Probe[]];
    const wrong = { ...probe, numbers: { 'op/nothing/3/seconds': 1, 'op/nothing/3/count': 1 } };
    expect(() => measuredRates({ probes: [wrong], apart: {} }, base.rates)).toThrow(RangeError);
    expect(() => measuredRates({ probes: [], apart: {} }, base.rates)).toThrow(RangeError);
  });
});
