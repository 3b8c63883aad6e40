import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { decodePlan } from '../../src/plan/decode.js';
import { encodePlan } from '../../src/plan/encode.js';
import { evaluationExcess } from '../../src/plan/evaluationText.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { planSummary } from '../../src/plan/summary.js';
import { evaluationOf, isOfEvaluation, trainingOf } from '../../src/schedule/evaluation.js';
import type { Op, Section } from '../../src/schedule/op.js';
import { planRun } from '../../src/strategy/planRun.js';
import { verifySchedule } from '../../src/verify/verify.js';

const DEMO = fileURLToPath(new URL('../../examples/demo/', import.meta.url));

type Run = Parameters<typeof planRun>[0]['run'];

const plan = (run: Omit<Run, 'seqLen'>, evaluate = true): Promise<ExecutionPlan> =>
  planRun({
    model: `${DEMO}model/config.json`,
    deepspeed: `${DEMO}ds_config.json`,
    cluster: { gpus: 2, gpu: 'cpu' },
    run: { seqLen: 1024, ...run, ...(evaluate ? { evaluate } : {}) },
  });

const RUNS: Readonly<Record<string, Omit<Run, 'seqLen'>>> = {
  auto: { numChunks: 4 },
  fpdt: { policy: 'fpdt', numChunks: 4 },
  'fpdt in segments': { policy: 'fpdt', numChunks: 2, segmentLayers: 2 },
  ulysses: { policy: 'ulysses' },
  'all on the host': {
    numChunks: 4,
    strategy: {
      hiddenGradients: 'host',
      layers: [{ layers: [0, 2], keyValues: 'host', keyValueGradients: 'host', attentionOutput: 'host', checkpoints: 'host' }],
    },
  },
};

const verified = (found: ExecutionPlan, changed: Partial<ExecutionPlan> = {}) => {
  const { model, parameters } = found;
  const rest = { numLayers: model.numLayers, windows: model.windows, classOf: model.code.classOf, tied: model.tieWordEmbeddings };
  return verifySchedule({ ...found, ...changed, parameters, ...rest });
};

const kindsOf = (sections: readonly Section[]): ReadonlySet<string> => new Set(sections.flatMap(({ ops }) => ops.map(({ kind }) => kind)));

describe.each(Object.keys(RUNS))('a program that evaluates beside training as %s has it', (name) => {
  it('leaves training as it is, to the byte, and lies within its arenas', async () => {
    const [with_, without] = await Promise.all([plan(RUNS[name] ?? {}), plan(RUNS[name] ?? {}, false)]);
    const training = trainingOf(with_);
    expect(training.sections).toEqual(without.sections);
    expect(training.programs).toEqual(without.programs);
    expect(with_.buffers.filter((buffer) => !isOfEvaluation(buffer))).toEqual(without.buffers);
    expect(with_.pools).toEqual(without.pools);
    expect(with_.prediction.stepSeconds).toBe(without.prediction.stepSeconds);
    expect(with_.features.filter((feature) => feature !== 'evaluate')).toEqual(without.features);
    expect(with_.features).toContain('evaluate');
    expect(without.prediction.evaluation).toBeUndefined();
  });

  it('goes forward once, keeps nothing and forms no gradient', async () => {
    const found = await plan(RUNS[name] ?? {});
    const evaluation = evaluationOf(found) as ExecutionPlan;
    const kinds = kindsOf(evaluation.sections);
    for (const kind of ['embed', 'pre', 'attn', 'post', 'lossOnly']) expect(kinds).toContain(kind);
    for (const kind of ['loss', 'postKeep', 'emitGrads', 'preBwd', 'rescale']) expect(kinds).not.toContain(kind);
    const touched = new Set(evaluation.sections.flatMap(({ ops }) => ops.flatMap(buffersOf)));
    expect(found.buffers.filter(({ id }) => touched.has(id)).every(isOfEvaluation)).toBe(true);
    expect(found.buffers.filter((buffer) => isOfEvaluation(buffer) && /saved|kept|wgrad|dx/.test(buffer.name))).toEqual([]);
  });

  it('is in the ledger and predicted, and travels with the plan', async () => {
    const found = await plan(RUNS[name] ?? {});
    const [device] = found.memory.pools;
    const bytes = (instant: string): number => device?.instants.find((one) => one.name === instant)?.totalBytes ?? Number.NaN;
    expect(bytes('evaluateLayer')).toBeLessThanOrEqual(bytes('layerForward'));
    expect(bytes('evaluateLoss')).toBeLessThanOrEqual(bytes('loss'));
    const { evaluation, stepSeconds } = found.prediction;
    expect(evaluation?.sequenceSeconds).toBeGreaterThan(0);
    expect(evaluation?.sequenceSeconds).toBeLessThan(stepSeconds / 2);
    expect(evaluation?.tokensPerSecond).toBeCloseTo(1024 / (evaluation?.sequenceSeconds ?? 0), 6);
    expect(planSummary(found)).toMatch(/^Evaluation {2}.* a sequence predicted, .*; within the arenas of training$/m);
    const back = decodePlan(encodePlan(found));
    expect(back.digest).toBe(found.digest);
    expect(back.programs).toEqual(found.programs);
  });
});

it('attends to all heads at once beside training in groups of them', async () => {
  const found = await plan({ sequenceParallelSize: 1, numChunks: 4, headGroups: 2 });
  expect(verified(found)).toEqual([]);
  const { attributes } = found;
  const groupsOf = (of: ExecutionPlan): ReadonlySet<number | undefined> =>
    new Set(of.sections.flatMap(({ ops }) => ops.map(({ attribute }) => attributes[attribute ?? -1]?.heads?.groups)));
  expect(groupsOf(found)).toContain(2);
  expect([...groupsOf(evaluationOf(found) as ExecutionPlan)]).toEqual([undefined]);
});

describe('the verifier', () => {
  it('looks at the program that evaluates too', async () => {
    const found = await plan({ policy: 'fpdt', numChunks: 4 });
    expect(verified(found)).toEqual([]);
    const change = (section: string, to: (op: Op) => Op): readonly Section[] =>
      found.sections.map((one) => (one.name === section ? { ...one, ops: one.ops.map(to) } : one));
    const late = change('evaluateLayer', (op) => (op.kind === 'attn' ? { ...op, waits: [] } : op));
    expect(verified(found, { sections: late })[0]).toMatchObject({ section: 'evaluateLayer' });
    const { train, evaluate } = found.programs;
    const turns = evaluate?.turns ?? [];
    const wrong = (to: typeof turns) => verified(found, { programs: { train, evaluate: { turns: to } } });
    expect(wrong(turns.slice(0, -1))[0]).toMatchObject({ section: 'program', problem: /expected head forward/ });
    expect(
      wrong(turns.map((turn) => ({ ...turn, calls: turn.calls.map((call) => ({ ...call, args: call.args.map(() => 0) })) }))),
    ).not.toEqual([]);
    // Sections of training fill other tables, and form gradients.
    const training = turns.map((turn, i) => ({ ...turn, calls: train.turns[i]?.calls ?? [] }));
    expect(wrong(training)[0]).toMatchObject({ section: 'embedForward', problem: 'must fill the tables tokenIds, positions, labels' });
    const lossOfTraining = turns.map((turn) => (turn.module === 'head' ? { ...turn, calls: train.turns.find(isHead)?.calls ?? [] } : turn));
    const problems = wrong(lossOfTraining).map(({ problem }) => problem);
    expect(problems).toContain('has lossOnly in 0 calls, expected one');
    expect(problems).toContain('is of a kind that evaluation has none of');
    expect(problems).toContain('reads labels[0:256), which nothing has written in this micro-step');
  });

  it('has no forward-only loss in training', async () => {
    const found = await plan({ policy: 'fpdt', numChunks: 4 });
    const turns = found.programs.train.turns.map((turn) =>
      turn.module === 'head' && turn.direction === 'forward'
        ? { ...turn, calls: (found.programs.evaluate?.turns ?? []).flatMap(({ module, calls }) => (module === 'head' ? calls : [])) }
        : turn,
    );
    const programs = { ...found.programs, train: { turns } };
    expect(verified(found, { programs }).map(({ problem }) => problem)).toContain('is of a kind that training has none of');
  });
});

it('what lies beyond the arenas of training is said', async () => {
  const found = await plan({ numChunks: 4 });
  const [first] = found.buffers.filter(isOfEvaluation);
  const buffers = found.buffers.map((buffer) => (buffer === first ? { ...buffer, offset: 1 << 30 } : buffer));
  expect(evaluationExcess({ buffers }, first?.pool ?? '')).toBeGreaterThan(0);
  expect(planSummary({ ...found, buffers })).toMatch(/; beyond the arenas of training by [\d.]+ [MG]iB of hbm$/m);
});

function buffersOf({ reads, writes, accumulates }: Op): readonly number[] {
  return [...reads, ...writes, ...accumulates].map(({ buffer }) => buffer);
}

function isHead({ module }: { readonly module: string }): boolean {
  return module === 'head';
}
