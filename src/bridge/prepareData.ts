/** Prepares a run's data before its ranks start: one Python process, whose error is the run's. */

import * as z from 'zod';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { FpdtError } from '../spec/errors.js';
import { type DataOfRun, dataFlags } from './dataOptions.js';
import { stopGroups } from './killLadder.js';
import type { RunOptions } from './runOptions.js';
import { SETUP_HINT } from './python.js';
import { prepareEnvironment, type Environment } from './rankEnvironment.js';
import { startRank, type RankProcess } from './ranks.js';

export interface PrepareContext {
  readonly python: string;
  readonly environment: Environment;
  readonly signal?: AbortSignal | undefined;
  /** Lines that say how far it is. */
  readonly onLine?: ((line: string) => void) | undefined;
}

const answerSchema = z.union([
  z.strictObject({
    tokens: z.int().nonnegative(),
    documents: z.int().nonnegative().nullable(),
    /** Token store; null where ranks read the data as it is. */
    folder: z.string().nullable(),
    /** What sequences are, in words. */
    cut: z.string(),
    /** What a user should know of the two together. */
    remark: z.string().nullable(),
  }),
  z.strictObject({ error: z.strictObject({ message: z.string(), hint: z.string() }) }),
]);
export type PreparedData = Exclude<z.infer<typeof answerSchema>, { error: unknown }>;

/**
 * What ranks train on, and what they evaluate. Returns what a user should know of both with the plan. Throws as `prepareData` does.
 */
export async function prepareAll(
  plan: Pick<ExecutionPlan, 'model' | 'run'>,
  { data, dataOptions, evaluation }: Pick<RunOptions, 'data' | 'dataOptions' | 'evaluation'>,
  context: PrepareContext,
): Promise<readonly string[]> {
  const remarks = new Set<string>();
  for (const path of new Set([data, ...(evaluation === null ? [] : [evaluation.data])])) {
    const { remark } = await prepareData(plan, { data: path, dataOptions }, context);
    if (remark !== null) remarks.add(remark);
  }
  return [...remarks];
}

/** Throws `data-refused` for data that the plan cannot be trained on, `run-aborted`, and `prepare-failed` with what Python said. */
export async function prepareData(
  plan: Pick<ExecutionPlan, 'model' | 'run'>,
  options: DataOfRun,
  { python, environment, signal, onLine = () => undefined }: PrepareContext,
): Promise<PreparedData> {
  const output: string[] = [];
  const child = startRank({
    rank: 0,
    python,
    arguments: ['-m', 'fpdt.prepare', '--json', ...dataFlags(options), ...planFlags(plan)],
    environment: prepareEnvironment(environment),
    onLine: (stream, line) => (stream === 'stdout' ? output.push(line) : onLine(line)),
  });
  await endOf(child, signal);
  return answerOf(output.at(-1), child, python);
}

function planFlags({ model, run }: Pick<ExecutionPlan, 'model' | 'run'>): readonly string[] {
  const packs = 'packing' in run && run.packing === true;
  return ['--vocab-size', String(model.vocabSize), '--seq-len', String(run.seqLen), ...(packs ? ['--packing'] : [])];
}

async function endOf(child: RankProcess, signal: AbortSignal | undefined): Promise<void> {
  const { pid } = child;
  const stop = (): void => {
    if (pid !== undefined) void stopGroups([pid], () => false);
  };
  signal?.addEventListener('abort', stop, { once: true });
  if (signal?.aborted === true) stop();
  await child.exited;
  if (child.exit()?.startError === null) await child.closed;
  signal?.removeEventListener('abort', stop);
  if (pid !== undefined) await stopGroups([pid], () => false);
  if (signal?.aborted === true) {
    throw new FpdtError('run aborted while its data was prepared', { code: 'run-aborted', details: { reason: String(signal.reason) } });
  }
}

function answerOf(line: string | undefined, child: RankProcess, python: string): PreparedData {
  const answer = answerSchema.safeParse(parsed(line));
  if (!answer.success) {
    const { code, signal, startError } = child.exit() ?? { code: null, signal: null, startError: null };
    throw new FpdtError(`preparing the data failed: ${startError ?? `${python} ended with ${signal ?? `code ${code}`}`}`, {
      code: 'prepare-failed',
      hint: SETUP_HINT,
      details: { stderr: child.stderrTail() },
    });
  }
  if (!('error' in answer.data)) return answer.data;
  const { message, hint } = answer.data.error;
  throw new FpdtError(message, { code: 'data-refused', hint });
}

function parsed(line: string | undefined): unknown {
  try {
    return line === undefined ? undefined : JSON.parse(line);
  } catch {
    return undefined; // Something printed in the place of the answer.
  }
}
