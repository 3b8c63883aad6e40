/** `fpdt run --slurm`: the same run as a batch job, whose script is kept. */
import { checkLaunch } from '../bridge/launchChecks.js';
import type { LaunchOptions } from '../bridge/launchOptions.js';
import { slurmScript, submit } from '../bridge/hosts/slurm.js';
import { readPlanFile } from '../plan/file.js';
import { writeWholeFile } from '../plan/wholeFile.js';
import { FpdtError } from '../spec/errors.js';
import { modelFolder } from './modelPath.js';
import type { Output } from './output.js';

type Options = Readonly<Record<string, unknown>>;

const DEFAULT_SCRIPT = 'fpdt.sbatch';

/** Throws FpdtError `usage` for options of a job without one. */
export function isForSlurm({ slurm, slurmOptions, slurmScript: script }: Options): boolean {
  if (slurm === true) return true;
  if (slurmOptions === undefined && script === undefined) return false;
  throw new FpdtError('--slurm-options and --slurm-script need --slurm', { code: 'usage', hint: 'give it as well, or leave them out' });
}

/** Checks what can be checked here, writes the script and submits it. Returns the exit code. */
export async function submitCommand(path: string, options: Options, output: Output): Promise<number> {
  const { slurm: _, slurmOptions = '', slurmScript: script = DEFAULT_SCRIPT, ...run } = options;
  const launch = run as unknown as LaunchOptions;
  if (launch.hostfile !== undefined || launch.srun === true)
    throw new FpdtError('--slurm, --hostfile and --srun each say where the ranks are to be', { code: 'usage', hint: 'give one of them' });
  const plan = await readPlanFile(path);
  checkLaunch(plan, { ...launch, weights: launch.weights === undefined ? undefined : modelFolder(launch.weights) });
  const command = [...thisProgram(), 'run', path, ...flags(run), '--srun'];
  const text = slurmScript({ cluster: plan.cluster, options: String(slurmOptions), folder: process.cwd(), command });
  await writeWholeFile(String(script), text, 'the script');
  output.err(`wrote ${String(script)} and submitted it as job ${submit(String(script))}`);
  return 0;
}

/** This command line up to its arguments; other hosts have it at the same path. */
export function thisProgram(): readonly string[] {
  return [process.execPath, ...process.execArgv, process.argv[1] ?? ''];
}

/** Options as they are written on a command line. */
function flags(options: Options): readonly string[] {
  return Object.entries(options).flatMap(([key, value]) => {
    const name = key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    if (value === undefined) return [];
    if (typeof value === 'boolean') return [value ? `--${name}` : `--no-${name}`];
    return [`--${name}=${wordsOf(value).join(',')}`];
  });
}

/** Commander gives texts, numbers and lists of them. */
function wordsOf(value: unknown): readonly string[] {
  if (Array.isArray(value)) return value.flatMap(wordsOf);
  if (typeof value === 'string' || typeof value === 'number') return [String(value)];
  throw new TypeError('an option is neither text nor number');
}
