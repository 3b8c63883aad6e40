/** Planned against measured: op kinds, step time, memory and copied bytes. Pure functions of a plan and a run's result. */
import type { RunResult, StepResult } from '../bridge/runResult.js';
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

/** JSON-safe; all numbers are per optimizer step of one rank. */
export interface Comparison {
  readonly kind: 'comparison';
  /** Steps the times are taken from: all but the first, which also allocates and warms up. */
  readonly numTimedSteps: number;
  readonly kinds: readonly KindComparison[];
  readonly idleSeconds: number;
  readonly stepSeconds: PlannedMeasured;
  /** Mean over the timed steps, and the mean of all op kinds plus idle. */
  readonly meanStepSeconds: number;
  readonly meanAccountedSeconds: number;
  readonly hbmBytes: PlannedMeasured;
  readonly hostBytes: PlannedMeasured;
  readonly h2dBytes: PlannedMeasured;
  readonly d2hBytes: PlannedMeasured;
  readonly firstLoss: number | null;
  readonly lastLoss: number | null;
}

export function compareRun({ prediction, memory }: ReportPlan, result: RunResult): Comparison {
  const timed = result.steps.length > 1 ? result.steps.slice(1) : result.steps;
  return {
    kind: 'comparison',
    numTimedSteps: timed.length,
    kinds: compareKinds(prediction.byKind, timed),
    idleSeconds: median(timed.map((step) => step.idleSeconds)),
    stepSeconds: { planned: prediction.stepSeconds, measured: median(timed.map((step) => step.seconds)) },
    meanStepSeconds: mean(timed.map((step) => step.seconds)),
    meanAccountedSeconds: mean(timed.map(accountedSeconds)),
    hbmBytes: { planned: memory.hbm.peakBytes, measured: result.hbmBytes },
    hostBytes: { planned: memory.host.peakBytes, measured: result.hostBytes },
    h2dBytes: { planned: prediction.copiedBytes.h2d, measured: median(timed.map((step) => step.copiedBytes.h2d)) },
    d2hBytes: { planned: prediction.copiedBytes.d2h, measured: median(timed.map((step) => step.copiedBytes.d2h)) },
    firstLoss: result.steps[0]?.loss ?? null,
    lastLoss: result.steps.at(-1)?.loss ?? null,
  };
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
  return [
    `per step and rank, median of ${comparison.numTimedSteps} steps:`,
    formatTable(['op kind', 'planned', 'run', 'planned time', 'measured', 'ratio'], [...rows, idle, step]),
    '',
    formatTable(
      ['bytes per rank', 'planned', 'measured', 'ratio'],
      BYTE_ROWS.map(([name, key]) => byteRow(name, comparison[key])),
    ),
  ].join('\n');
}

const BYTE_ROWS = [
  ['hbm, peak', 'hbmBytes'],
  ['host, peak', 'hostBytes'],
  ['copied h2d', 'h2dBytes'],
  ['copied d2h', 'd2hBytes'],
] as const;

function byteRow(name: string, { planned, measured }: PlannedMeasured): string[] {
  return [name, formatBytes(planned), formatBytes(measured), formatRatio(measured, planned)];
}
