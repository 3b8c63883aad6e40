/** What one optimizer step costs: every section simulated once, times how often it runs, and what DeepSpeed adds. */
import type { Strategy } from '../chunk/strategy.js';
import type { DeepSpeedConfig, ParameterView } from '../spec/types.js';
import { type CostInput, costModel, gatherSeconds, viewBytes } from './cost.js';
import { type Op, type OpKind, SECTIONS, type Section, type SectionName } from './op.js';
import { type CostModel, type KindSeconds, type Prediction, type SectionPrediction, simulateSection } from './simulate.js';

export interface PredictInput extends CostInput {
  readonly strategy: Strategy;
  readonly schedule: Readonly<Record<SectionName, Section>>;
  readonly deepspeed: DeepSpeedConfig;
}

/** Seconds of one rank; all ranks do the same. Tokens are those of the data, padding not counted. */
export function predictRun(input: PredictInput): Prediction {
  const cost = costModel(input);
  const seconds = opSeconds(input, cost);
  const sections = SECTIONS.map((name) =>
    predictSection(input.schedule[name], { ...cost, seconds: ({ id }) => seconds[name][id] ?? 0 }, input),
  );
  const sum = (value: (section: SectionPrediction) => number): number =>
    sections.reduce((total, section) => total + section.runs * value(section), 0);
  const stepSeconds = sum((section) => section.makespanSeconds) + input.cluster.rates.stepOverheadSeconds;
  return {
    kind: 'prediction',
    stepSeconds,
    tokensPerSecond: tokensPerStep(input) / stepSeconds,
    exposedCopySeconds: sum((section) => section.exposedCopySeconds),
    sections,
    byKind: byKind(input, seconds),
    copiedBytes: { h2d: copiedBytes(input, 'fetch'), d2h: copiedBytes(input, 'offload') },
    mfu: mfu(input, stepSeconds),
  };
}

type OpSeconds = Readonly<Record<SectionName, Float64Array>>;

/** What each op costs, by its id: found once, used by the simulation and the totals. */
function opSeconds({ schedule }: PredictInput, cost: CostModel): OpSeconds {
  return Object.fromEntries(SECTIONS.map((name) => [name, Float64Array.from(schedule[name].ops, cost.seconds)])) as Record<
    SectionName,
    Float64Array
  >;
}

/** How often a section runs in one optimizer step. */
export function sectionRuns(name: SectionName, { model, run, strategy }: Pick<PredictInput, 'model' | 'run' | 'strategy'>): number {
  if (name === 'stepEnd') return 1;
  const perLayer = name === 'layerForward' || name === 'layerBackward';
  return run.gradientAccumulationSteps * (perLayer ? model.numLayers / strategy.segmentLayers : 1);
}

/**
 * A section also waits for the weights that ZeRO-3 gathers by its own hooks. The ops of stepEnd share no views, but DeepSpeed
 * reduces before it updates.
 */
function predictSection(section: Section, cost: CostModel, input: PredictInput): SectionPrediction {
  const serial = cost.serial || section.name === 'stepEnd';
  const { makespanSeconds, busySeconds, exposedCopySeconds } = simulateSection(section, { ...cost, serial }, input.buffers);
  const { seconds: gathers } = hookGathers(section, input);
  const exposedGathers = overlapsGathers(input) ? Math.max(0, gathers - makespanSeconds) : gathers;
  return {
    name: section.name,
    runs: sectionRuns(section.name, input),
    makespanSeconds: makespanSeconds + exposedGathers,
    busySeconds: { ...busySeconds, comm: busySeconds.comm + gathers },
    exposedCopySeconds,
  };
}

/** Gathers of one run of a section: one for each part, which is one autograd function's forward or backward. */
function hookGathers({ name, parts }: Section, input: PredictInput): KindSeconds {
  if (input.run.zeroStage < 3 || name === 'stepEnd') return { count: 0, seconds: 0 };
  const { numLayerElements, numHeadElements, numEmbedElements } = input.parameters;
  const elements =
    { embedForward: numEmbedElements, embedBackward: numEmbedElements, lossForwardBackward: numHeadElements }[name as string] ??
    numLayerElements;
  return { count: parts.length, seconds: parts.length * gatherSeconds(elements, input) };
}

/** ZeRO-3 gathers the next layer while this one computes if it may prefetch; the CPU device does one thing at a time. */
function overlapsGathers({ cluster, deepspeed }: PredictInput): boolean {
  const zero = deepspeed['zero_optimization'] as Readonly<Record<string, unknown>> | undefined;
  return cluster.device === 'cuda' && zero?.['stage3_prefetch_bucket_size'] !== 0 && zero?.['prefetch_bucket_size'] !== 0;
}

/** Ops by kind; `gather` also counts those of ZeRO's hooks. */
function byKind(input: PredictInput, opSecondsOf: OpSeconds): Prediction['byKind'] {
  const totals = new Map<OpKind, { count: number; seconds: number }>();
  const add = (kind: OpKind, count: number, seconds: number, runs: number): void => {
    const total = totals.get(kind) ?? { count: 0, seconds: 0 };
    total.count += runs * count;
    total.seconds += runs * seconds;
    totals.set(kind, total);
  };
  forEachOp(input, (op, runs, section) => add(op.kind, 1, opSecondsOf[section][op.id] ?? 0, runs));
  for (const section of Object.values(input.schedule)) {
    const gathers = hookGathers(section, input);
    if (gathers.count > 0) add('gather', gathers.count, gathers.seconds, sectionRuns(section.name, input));
  }
  return Object.fromEntries(totals);
}

function forEachOp(input: PredictInput, visit: (op: Op, runs: number, section: SectionName) => void): void {
  for (const { name, ops } of Object.values(input.schedule)) {
    const runs = sectionRuns(name, input);
    for (const op of ops) visit(op, runs, name);
  }
}

function copiedBytes(input: PredictInput, kind: 'fetch' | 'offload'): number {
  let bytes = 0;
  forEachOp(input, (op, runs) => {
    if (op.kind === kind) bytes += runs * viewBytes(op.reads, input.buffers);
  });
  return bytes;
}

function tokensPerStep({ run }: PredictInput): number {
  return run.seqLen * run.dataParallelSize * run.gradientAccumulationSteps;
}

/**
 * Model FLOPs per token: 6 per matmul parameter, and 6 S H d per layer for causal attention (forward 2 S H d, backward
 * twice that), double that for full attention. Hardware FLOPs are those of the ops the plan runs, recompute included.
 */
function mfu(input: PredictInput, stepSeconds: number): Prediction['mfu'] {
  const { model, run, cluster, parameters } = input;
  const perRankTokens = tokensPerStep(input) / cluster.numRanks;
  const matmul = 6 * (model.numLayers * matmulElements(parameters.layer) + matmulElements(parameters.head)) * perRankTokens;
  const attention = 6 * run.seqLen * model.numHeads * model.headDim * model.numLayers * perRankTokens;
  const hardware = hardwareFlops(input);
  const share = (flops: number): number => flops / (stepSeconds * cluster.peakFlops);
  return {
    causalModel: share(matmul + attention),
    causalHardware: share(hardware.other + hardware.attention),
    fullModel: share(matmul + 2 * attention),
    fullHardware: share(hardware.other + 2 * hardware.attention),
  };
}

/** Weights that a token is multiplied by: matrices, not norms; the embedding is a look-up. */
function matmulElements(views: readonly ParameterView[]): number {
  return views.reduce((sum, { shape, numel }) => (shape.length === 2 ? sum + numel : sum), 0);
}

function hardwareFlops(input: PredictInput): { readonly attention: number; readonly other: number } {
  let [attention, other] = [0, 0];
  forEachOp(input, (op, runs) => {
    const flops = runs * input.work.flops(op);
    if (op.kind === 'attn' || op.kind === 'attnBwd') attention += flops;
    else other += flops;
  });
  return { attention, other };
}
