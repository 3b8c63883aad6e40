/** Chooses a strategy: candidates in order of preference, the first that fits; no clock, no randomness. */
import type { MemoryLedger } from '../memory/ledger.js';
import { explainMisfit } from '../memory/misfit.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import type { ClusterSpec, ModelSpec, RunSpec } from '../spec/types.js';
import { candidates } from './candidates.js';
import { changes } from './changes.js';
import type { Strategy } from './strategy.js';

export interface SolveInput {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly cluster: ClusterSpec;
}

export interface Evaluation {
  readonly fits: boolean;
  readonly hbmBytes: number;
  readonly hostBytes: number;
  /** Where given, a misfit is explained item by item. */
  readonly ledger?: MemoryLedger | undefined;
  /** Where given, the fastest of the placements that fit is chosen, not the first. */
  readonly stepSeconds?: number | undefined;
}

/** Evaluates a strategy for the given input, which is the caller's own but where a change is tried to explain a misfit. */
export type Evaluate = (strategy: Strategy, input: SolveInput) => Evaluation;

/** The best strategy that fits. Throws `does-not-fit` with the smallest change that would. */
export function solveStrategy(input: SolveInput, evaluate: Evaluate): Strategy {
  const found = search(input, evaluate);
  if (found.strategy !== undefined) return found.strategy;
  const hint = suggest(input, evaluate);
  const closest = found.closest;
  if (closest.ledger !== undefined) throw explainMisfit(closest.ledger, hint);
  throw new FpdtError(
    `does not fit: ${formatBytes(closest.hbmBytes)} of HBM (${formatBytes(input.cluster.hbmBytes)} there) and ` +
      `${formatBytes(closest.hostBytes)} of host memory (${formatBytes(input.cluster.hostBytes)} there) needed`,
    { code: 'does-not-fit', hint, details: { hbmBytes: closest.hbmBytes, hostBytes: closest.hostBytes } },
  );
}

interface Found {
  readonly strategy?: Strategy;
  readonly evaluation?: Evaluation;
  /** The evaluation that misses by least. */
  readonly closest: Evaluation;
}

/** Of every placement the fewest chunks that fit; of these the fastest, or the first where no time is known. */
function search(input: SolveInput, evaluate: Evaluate): Found {
  let best: Evaluated | undefined;
  let closest: Evaluation | undefined;
  for (const placement of candidates(input)) {
    const found = fewestChunks(placement, input, evaluate);
    if (found === undefined) continue;
    const { evaluation } = found;
    if (closest === undefined || excess(evaluation, input) < excess(closest, input)) closest = evaluation;
    if (!evaluation.fits) continue;
    if (best === undefined || (evaluation.stepSeconds ?? 0) < (best.evaluation.stepSeconds ?? 0)) best = found;
    if (best.evaluation.stepSeconds === undefined) break;
  }
  if (closest === undefined) throw new RangeError('no candidate strategy');
  return { ...best, closest };
}

interface Evaluated {
  readonly strategy: Strategy;
  readonly evaluation: Evaluation;
}

/**
 * The fewest chunks of a placement that fit; its most chunks where none do. More chunks never need more memory, so a placement
 * whose most chunks do not fit is given up after two looks.
 */
function fewestChunks(placement: readonly Strategy[], input: SolveInput, evaluate: Evaluate): Evaluated | undefined {
  const look = (strategy: Strategy): Evaluated => ({ strategy, evaluation: evaluate(strategy, input) });
  const [fewest, ...more] = placement;
  const most = more.pop();
  if (fewest === undefined) return undefined;
  const first = look(fewest);
  if (first.evaluation.fits || most === undefined) return first;
  const last = look(most);
  if (!last.evaluation.fits) return last;
  for (const strategy of more) {
    const found = look(strategy);
    if (found.evaluation.fits) return found;
  }
  return last;
}

function excess({ hbmBytes, hostBytes }: Evaluation, { cluster }: SolveInput): number {
  return Math.max(0, hbmBytes - cluster.hbmBytes) + Math.max(0, hostBytes - cluster.hostBytes);
}

/** A quick look: does any placement fit with the most chunks? Memory falls with their number. */
function mayFit(input: SolveInput, evaluate: Evaluate): boolean {
  return candidates(input).some((placement) => evaluate(placement.at(-1) as Strategy, input).fits);
}

/** The first change, in order of how little it asks for, under which something fits. */
function suggest(input: SolveInput, evaluate: Evaluate): string | undefined {
  for (const change of changes(input)) {
    if (!mayFit(change.input, evaluate)) continue;
    const { strategy, evaluation } = search(change.input, evaluate);
    if (strategy === undefined || evaluation === undefined) continue;
    const { cluster } = change.input;
    return (
      `${change.name(strategy)} fits: ${formatBytes(evaluation.hbmBytes)} of ${formatBytes(cluster.hbmBytes)} HBM, ` +
      `${formatBytes(evaluation.hostBytes)} of ${formatBytes(cluster.hostBytes)} host memory`
    );
  }
  return undefined;
}
