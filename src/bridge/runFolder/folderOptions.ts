/** Options of a run about its folder, and the folder that they ask for. */
import { VERSION } from '../../package.js';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { describe } from '../../spec/describe.js';
import { FpdtError } from '../../spec/errors.js';
import type { RunOptions } from '../runOptions.js';
import type { Environment } from '../rankEnvironment.js';
import { type LoggerName, LOGGERS } from './loggers.js';
import { ON_UNWRITABLE, openRunFolder, type OnUnwritable, type RunFolder } from './runFolder.js';

export interface FolderOptions {
  /** New folder for what is worth keeping of the run: config.json, plan.json, metrics.jsonl and rank-N.log. */
  readonly runFolder?: string | undefined;
  /** Whether a line that cannot be written there is remarked on, or stops the run; default remark. */
  readonly onUnwritable?: OnUnwritable | undefined;
  /** Where metrics go beside their file. */
  readonly loggers?: readonly LoggerName[] | undefined;
  /** Environment of the ranks, and of the loggers, in place of this process's own. */
  readonly environment?: Environment | undefined;
}

/** Throws FpdtError where the options do not go together, and where the folder or a logger cannot be opened. */
export async function folderOf(
  plan: ExecutionPlan,
  { runFolder, onUnwritable = 'remark', loggers = [], environment }: FolderOptions,
  python: string,
  options: Pick<RunOptions, 'resume'> & { readonly numSteps?: number },
): Promise<RunFolder | undefined> {
  if (!ON_UNWRITABLE.includes(onUnwritable)) throw invalid('onUnwritable', ON_UNWRITABLE, onUnwritable);
  const unknown = loggers.find((name) => !LOGGERS.includes(name));
  if (unknown !== undefined) throw invalid('loggers', LOGGERS, unknown);
  if (runFolder === undefined && loggers.length > 0) {
    throw new FpdtError(`${loggers.join(', ')} need the folder of a run`, { code: 'run-folder-missing', hint: 'give --run-folder' });
  }
  if (runFolder === undefined) return undefined;
  return openRunFolder({
    path: runFolder,
    plan,
    options: { ...options },
    resumes: options.resume !== null,
    onUnwritable,
    version: VERSION,
    ...(loggers.length === 0 ? {} : { loggers: { names: [...new Set(loggers)], python, environment: environment ?? process.env } }),
  });
}

function invalid(option: string, known: readonly string[], found: unknown): FpdtError {
  return new FpdtError(`run option ${option}: expected ${known.join(' or ')}, found ${describe(found)}`, {
    code: 'invalid-option',
    hint: `give ${known.join(' or ')}, or leave ${option} out`,
    details: { option },
  });
}
