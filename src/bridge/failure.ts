/** What can go wrong with a rank, which of several failures is the cause, and the error a user sees. */

import { FpdtError } from '../spec/errors.js';
import type { Body, Phase } from './protocol.js';
import { SETUP_HINT } from './python.js';
import type { RankExit } from './ranks.js';

interface Place {
  readonly rank: number;
  readonly phase: Phase;
  readonly step: number | null;
}

export type Failure =
  /** The rank reported an exception. */
  | (Place & { readonly kind: 'error'; readonly error: Body<'error'> })
  /** The process ended by itself. `step` is the first it has not reported done; a report may have died with it. */
  | (Place & { readonly kind: 'exit'; readonly exit: RankExit })
  | (Place & { readonly kind: 'hang'; readonly reason: string })
  | (Place & { readonly kind: 'protocol'; readonly reason: string; readonly hint?: string })
  /** A host of ranks is gone, or what started its ranks. */
  | { readonly kind: 'hostLost'; readonly host: string; readonly reason: string; readonly hint: string }
  | { readonly kind: 'abort'; readonly reason: string }
  /** What the run writes by itself cannot be written, and the run was to stop then. */
  | { readonly kind: 'output'; readonly error: FpdtError }
  /** The bridge itself failed. */
  | { readonly kind: 'internal'; readonly cause: unknown };

type RankFailure = Extract<Failure, Place>;

/** How long other failures are waited for, so that the cause can be told from what it caused. */
export const SETTLE_MS = 200;

/**
 * The failure that caused the others. A host that is gone comes first, then a process that ended without a word: the exceptions of its peers
 * ("connection closed") are its consequence, never the other way round. Otherwise the earliest counts.
 */
export function findCause(failures: readonly Failure[]): Failure {
  // Its ranks are lost with it, one by one.
  const host = failures.find((one) => one.kind === 'hostLost');
  if (host !== undefined) return host;
  const speaking = new Set(failures.flatMap((one) => (one.kind === 'error' ? [one.rank] : [])));
  const silent = failures.find((one) => one.kind === 'exit' && !speaking.has(one.rank));
  const cause = silent ?? failures.find((one) => one.kind !== 'exit') ?? failures[0];
  if (cause === undefined) throw new RangeError('there is no failure');
  return cause;
}

/** `stderrOf` gives the last lines a rank wrote to stderr. */
export function toError(failures: readonly Failure[], stderrOf: (rank: number) => string): FpdtError {
  const cause = findCause(failures);
  if (cause.kind === 'abort') {
    return new FpdtError(`run aborted: ${cause.reason}`, { code: 'run-aborted', details: { reason: cause.reason } });
  }
  if (cause.kind === 'output') return cause.error;
  if (cause.kind === 'hostLost') {
    const { host, reason, hint } = cause;
    return new FpdtError(describe(cause), { code: 'host-lost', hint, details: { host, reason } });
  }
  if (cause.kind === 'internal') return new FpdtError(describe(cause), { code: 'bridge-failed', cause: cause.cause });
  const stderrTail = stderrOf(cause.rank);
  const others = failures.filter((one) => one !== cause).map(describe);
  const { rank, phase, step } = cause;
  const details = { rank, phase, step, ...factsOf(cause), stderrTail, others };
  return new FpdtError(describe(cause), { ...codeAndHint(cause, stderrTail), details });
}

/** One line, e.g. `rank 1: ValueError: no such token (phase stepping, step 3)`. */
export function describe(failure: Failure): string {
  if (failure.kind === 'abort') return `aborted: ${failure.reason}`;
  if (failure.kind === 'output') return failure.error.message;
  if (failure.kind === 'hostLost') return `host ${failure.host}: ${failure.reason}`;
  if (failure.kind === 'internal') return `the bridge failed: ${String(failure.cause)}`;
  const step = failure.step === null ? '' : `, step ${failure.step}${failure.kind === 'exit' ? ' or the next' : ''}`;
  return `rank ${failure.rank}: ${whatHappened(failure)} (phase ${failure.phase}${step})`;
}

function whatHappened(failure: RankFailure): string {
  if (failure.kind === 'error') return `${failure.error.kind}: ${failure.error.message}`;
  if (failure.kind === 'exit') return describeExit(failure.exit);
  return failure.reason;
}

export function describeExit(exit: RankExit): string {
  if (exit.startError !== null) return `could not be started: ${exit.startError}`;
  return exit.signal === null ? `exited with code ${exit.code}` : `was killed by ${exit.signal}`;
}

function factsOf(failure: RankFailure): Record<string, unknown> {
  if (failure.kind === 'error') {
    const { kind, traceback, hint } = failure.error;
    return { error: kind, traceback, isExplained: hint !== null };
  }
  if (failure.kind === 'exit') return { exitCode: failure.exit.code, signal: failure.exit.signal };
  return {};
}

function codeAndHint(failure: RankFailure, stderr: string): { code: string; hint?: string | undefined } {
  if (failure.kind === 'hang') return { code: 'rank-hung', hint: 'details.stderrTail has the Python stacks of the rank' };
  if (failure.kind === 'protocol') return { code: 'protocol-violation', hint: failure.hint };
  if (failure.kind === 'exit') return codeOfExit(failure, stderr);
  const { kind, hint } = failure.error;
  if (isImportError(kind)) return { code: 'python-packages-missing', hint: SETUP_HINT };
  const code = kind === 'PlanRefusedError' || kind === 'PlanError' ? 'plan-refused' : 'rank-failed';
  return { code, hint: hint ?? undefined };
}

function codeOfExit(failure: Extract<Failure, { kind: 'exit' }>, stderr: string): { code: string; hint?: string } {
  const { exit, phase } = failure;
  if (exit.startError !== null) return { code: 'rank-not-started', hint: SETUP_HINT };
  const missing = /^(?:ModuleNotFoundError|ImportError)\b.*$/m.exec(stderr);
  if (phase === 'starting' && missing !== null) {
    return { code: 'python-packages-missing', hint: `${missing[0]}: ${SETUP_HINT}` };
  }
  if (exit.signal === 'SIGKILL') return { code: 'rank-died', hint: 'SIGKILL without a sender is the out-of-memory killer: see dmesg' };
  return { code: 'rank-died' };
}

/** Whether processes failed, which others may not, and nothing that a user gave: an error that says what to change would come again. */
export function isOfProcesses(error: FpdtError): boolean {
  if (error.code === 'rank-died' || error.code === 'rank-hung' || error.code === 'host-lost') return true;
  return error.code === 'rank-failed' && error.details?.isExplained === false;
}

function isImportError(kind: string): boolean {
  return kind === 'ModuleNotFoundError' || kind === 'ImportError' || kind === 'MissingPackageError';
}
