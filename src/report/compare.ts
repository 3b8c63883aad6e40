/** Planned against measured: op kinds, step time, memory and copied bytes. Pure functions of a plan and a run's result. */
import type { RunResult, StepResult } from '../bridge/runResult.js';
import { communicatorBytes } from '../memory/communicators.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import { formatRatio, formatTable } from './table.js';

export type ReportPlan = Pick<ExecutionPlan, 'prediction' | 'memory' | 'run'>;

/** One op kind, per optimizer step of one rank. */
export interface KindComparison {
  readonly kind: string;
  readonly plannedCount: number;
  readonly measuredCount: number;
  readonly plannedSeconds: number;
  readonly measuredSeconds: number;
}

export interface PlannedMeasured {
  readonly planned: number;
  readonly measured: number;
}

/** Peak bytes of a pool; null where no step measured memory. */
export interface PoolComparison {
  readonly pool: string;
  readonly planned: number;
  readonly measured: number | null;
}

/** Bytes that one stream copied. */
export interface CopyComparison extends PlannedMeasured {
  readonly stream: string;
}

/** JSON-safe; all numbers are per optimizer step of one rank. */
export interface Comparison {
  readonly kind: 'comparison';
  /** Steps the times are taken from: not the first, which also allocates and warms up, nor those that measured memory, if others are left. */
  readonly numTimedSteps: number;
  /** Of them, those in which ops were timed: `kinds`, `idleSeconds` and the two means are of these. Where there are none, of any step. */
  readonly numOpSteps: number;
  readonly kinds: readonly KindComparison[];
  readonly idleSeconds: number;
  readonly stepSeconds: PlannedMeasured;
  /** Mean over the steps whose ops were timed, and the mean of all op kinds plus idle. */
  readonly meanStepSeconds: number;
  readonly meanAccountedSeconds: number;
  readonly pools: readonly PoolComparison[];
  /** The peak of start-up; only pools that it fills or that were measured. */
  readonly load: readonly PoolComparison[];
  /** What collectives took of the device; null where no rank could tell. */
  readonly communicators: PlannedMeasured | null;
  /** Steps, counted from 0, in which memory was measured. */
  readonly memorySteps: readonly number[];
  readonly copies: readonly CopyComparison[];
  readonly firstLoss: number | null;
  readonly lastLoss: number | null;
  /** Steps that left the weights as they were. */
  readonly numSkipped: number;
  /** What the ranks ran with, by kind. */
  readonly kernels: Readonly<Record<string, string>>;
}

export function compareRun({ prediction, memory }: ReportPlan, result: RunResult): Comparison {
  const timed = timedSteps(result.steps);
  const detailed = opSteps(timed, result.steps);
  const memorySteps = result.steps.filter(({ memoryMeasured }) => memoryMeasured).map(({ step }) => step);
  return {
    kind: 'comparison',
    numTimedSteps: timed.length,
    numOpSteps: detailed.length,
    kinds: compareKinds(prediction.byKind, detailed),
    idleSeconds: median(detailed.map((step) => step.idleSeconds)),
    stepSeconds: { planned: prediction.stepSeconds, measured: median(timed.map((step) => step.seconds)) },
    meanStepSeconds: mean(detailed.map((step) => step.seconds)),
    meanAccountedSeconds: mean(detailed.map(accountedSeconds)),
    pools: comparePools(memory, memorySteps.length > 0 ? result.poolBytes : undefined),
    load: compareLoad(memory, result.loadPoolBytes),
    communicators: compareCommunicators(memory, result.communicatorBytes),
    memorySteps,
    copies: compareCopies(prediction.copiedBytes, timed),
    firstLoss: result.steps[0]?.loss ?? null,
    lastLoss: result.steps.at(-1)?.loss ?? null,
    numSkipped: result.numSkipped,
    kernels: result.kernels,
  };
}

/** All but the first; where there are such, steps in which nobody followed every allocation, as a CPU device does in some. */
function timedSteps(steps: readonly StepResult[]): readonly StepResult[] {
  const later = steps.length > 1 ? steps.slice(1) : steps;
  const undisturbed = later.filter(({ memoryMeasured }) => !memoryMeasured);
  return undisturbed.length > 0 ? undisturbed : later;
}

function opSteps(timed: readonly StepResult[], all: readonly StepResult[]): readonly StepResult[] {
  const detailed = timed.filter(({ opsTimed }) => opsTimed);
  return detailed.length > 0 ? detailed : all.filter(({ opsTimed }) => opsTimed);
}

/** The plan's pools, then those that only the run has. */
function comparePools({ pools }: ReportPlan['memory'], measured: RunResult['poolBytes'] | undefined): readonly PoolComparison[] {
  const planned = new Map(pools.map(({ pool, peakBytes }) => [pool, peakBytes]));
  const names = new Set([...planned.keys(), ...Object.keys(measured ?? {})]);
  return [...names].map((pool) => ({
    pool,
    planned: planned.get(pool) ?? 0,
    measured: measured === undefined ? null : (measured[pool] ?? 0),
  }));
}

/** A pool that the run does not name was not measured. */
function compareLoad({ pools }: ReportPlan['memory'], measured: RunResult['loadPoolBytes']): readonly PoolComparison[] {
  const planned = new Map(pools.filter(({ load }) => load.totalBytes > 0).map(({ pool, load }) => [pool, load.totalBytes]));
  const names = new Set([...planned.keys(), ...Object.keys(measured)]);
  return [...names].map((pool) => ({ pool, planned: planned.get(pool) ?? 0, measured: measured[pool] ?? null }));
}

function compareCommunicators({ pools }: ReportPlan['memory'], measured: number | null): PlannedMeasured | null {
  const device = pools.find(({ kind }) => kind === 'device');
  return device === undefined || measured === null ? null : { planned: communicatorBytes(device.persistent), measured };
}

/** The plan's streams, then those that only the run has. */
function compareCopies(planned: ReportPlan['prediction']['copiedBytes'], steps: readonly StepResult[]): readonly CopyComparison[] {
  const streams = new Set([...Object.keys(planned), ...steps.flatMap(({ copiedBytes }) => Object.keys(copiedBytes))]);
  return [...streams].map((stream) => ({
    stream,
    planned: planned[stream] ?? 0,
    measured: median(steps.map(({ copiedBytes }) => copiedBytes[stream] ?? 0)),
  }));
}

/** Kinds by planned and measured seconds, longest first. */
function compareKinds(planned: ReportPlan['prediction']['byKind'], steps: readonly StepResult[]): KindComparison[] {
  const names = new Set([...Object.keys(planned), ...steps.flatMap((step) => Object.keys(step.byKind))]);
  const rows = [...names].map((kind): KindComparison => {
    const plan = planned[kind as keyof typeof planned];
    return {
      kind,
      plannedCount: plan?.count ?? 0,
      measuredCount: median(steps.map((step) => step.byKind[kind]?.count ?? 0)),
      plannedSeconds: plan?.seconds ?? 0,
      measuredSeconds: median(steps.map((step) => step.byKind[kind]?.seconds ?? 0)),
    };
  });
  const weight = (row: KindComparison): number => Math.max(row.measuredSeconds, row.plannedSeconds);
  return rows.sort((a, b) => weight(b) - weight(a) || (a.kind < b.kind ? -1 : 1));
}

function accountedSeconds({ byKind, idleSeconds }: StepResult): number {
  return Object.values(byKind).reduce((sum, { seconds }) => sum + seconds, idleSeconds);
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The middle value, or the mean of the two middle ones; 0 of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const lower = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
  return (lower + upper) / 2;
}

export function comparisonToText(comparison: Comparison): string {
  const rows = comparison.kinds.map(({ kind, plannedCount, measuredCount, plannedSeconds, measuredSeconds }) => [
    kind,
    String(plannedCount),
    String(measuredCount),
    formatSeconds(plannedSeconds),
    formatSeconds(measuredSeconds),
    formatRatio(measuredSeconds, plannedSeconds),
  ]);
  const { stepSeconds, idleSeconds } = comparison;
  const idle = ['idle', '', '', '', formatSeconds(idleSeconds), ''];
  const step = [
    'step',
    '',
    '',
    formatSeconds(stepSeconds.planned),
    formatSeconds(stepSeconds.measured),
    formatRatio(stepSeconds.measured, stepSeconds.planned),
  ];
  const { numTimedSteps, numOpSteps } = comparison;
  const ofOps = numOpSteps === numTimedSteps ? '' : `, of ops over ${numOpSteps}`;
  return [
    `per step and rank, median of ${numTimedSteps} steps${ofOps}:`,
    formatTable(['op kind', 'planned', 'run', 'planned time', 'measured', 'ratio'], [...rows, idle, step]),
    '',
    formatTable(['bytes per rank', 'planned', 'measured', 'ratio'], byteRows(comparison)),
    memoryStepsText(comparison),
    ...kernelTexts(comparison),
    ...skippedTexts(comparison),
  ].join('\n');
}

/** Pools and streams that neither plan nor run uses are left out. */
function byteRows({ pools, load, communicators, copies }: Comparison): readonly (readonly string[])[] {
  const rows = [
    ...pools.map(({ pool, ...bytes }) => ({ name: `${pool}, peak`, ...bytes })),
    ...load.map(({ pool, ...bytes }) => ({ name: `${pool}, load`, ...bytes })),
    ...(communicators === null ? [] : [{ name: 'communicators', ...communicators }]),
    ...copies.map(({ stream, ...bytes }) => ({ name: `copied ${stream}`, ...bytes })),
  ];
  return rows
    .filter(({ planned, measured }) => planned > 0 || (measured ?? 0) > 0)
    .map(({ name, planned, measured }) => [
      name,
      formatBytes(planned),
      measured === null ? 'not measured' : formatBytes(measured),
      formatRatio(measured ?? 0, planned),
    ]);
}

/** Steps counted from 1, as progress counts them. */
function memoryStepsText({ memorySteps }: Comparison): string {
  const steps = memorySteps.map((step) => step + 1);
  if (steps.length === 0) return 'memory was measured in no step';
  if (steps.length > MAX_LISTED_STEPS) return `memory measured in ${steps.length} steps, from step ${steps[0]} to step ${steps.at(-1)}`;
  return `memory measured in step${steps.length > 1 ? 's' : ''} ${steps.join(', ')}`;
}

function kernelTexts({ kernels }: Comparison): readonly string[] {
  const texts = Object.entries(kernels).map(([kind, name]) => `${kind} ${name}`);
  return texts.length === 0 ? [] : [`ran with the kernels ${texts.join(', ')}`];
}

function skippedTexts({ numSkipped }: Comparison): readonly string[] {
  if (numSkipped === 0) return [];
  return [`${numSkipped} step${numSkipped > 1 ? 's' : ''} skipped: gradients were not finite, and the weights stayed as they were`];
}

const MAX_LISTED_STEPS = 8;
