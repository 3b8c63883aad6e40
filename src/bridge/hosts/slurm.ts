/** A batch script of Slurm that runs a plan on the hosts of its allocation, and its submission. */

import { spawnSync } from 'node:child_process';
import type { ClusterSpec } from '../../spec/types.js';
import { FpdtError } from '../../spec/errors.js';
import { numNodes } from './placement.js';
import { quoted } from './starters.js';

/** A run that saves its state has this long for it before Slurm's time is up. */
const SECONDS_TO_SAVE = 120;

export interface SlurmJob {
  readonly cluster: Pick<ClusterSpec, 'numRanks' | 'ranksPerNode' | 'device'>;
  /** Of sbatch, as a user gives them: they count where they say otherwise. */
  readonly options: string;
  /** Folder that the job starts in. */
  readonly folder: string;
  /** Runs on the first host, and starts agents on all of them with srun. */
  readonly command: readonly string[];
}

/** Throws FpdtError `usage` for options that sbatch would not read as such. */
export function slurmScript({ cluster, options, folder, command }: SlurmJob): string {
  const perHost = Math.min(cluster.ranksPerNode, cluster.numRanks);
  const asked = [
    '--job-name=fpdt',
    `--nodes=${numNodes(cluster)}`,
    '--ntasks-per-node=1',
    ...(cluster.device === 'cuda' ? [`--gpus-per-node=${perHost}`] : []),
    '--exclusive',
    `--signal=B:TERM@${SECONDS_TO_SAVE}`,
    ...sbatchOptions(options),
  ];
  return [
    '#!/bin/bash',
    '# Written by fpdt run --slurm. Runs on the first host of the allocation; agents of all hosts are started from there.',
    ...asked.map((option) => `#SBATCH ${option}`),
    `cd ${quoted(folder)} || exit 1`,
    // In the place of the shell: it is this that Slurm signals before its time is up.
    `exec ${command.map(quoted).join(' ')}`,
    '',
  ].join('\n');
}

/** The id of the job. */
export function submit(script: string): string {
  const { status, stdout, stderr, error } = spawnSync('sbatch', ['--parsable', script], { encoding: 'utf8' });
  if (error !== undefined) {
    throw new FpdtError(`cannot start sbatch: ${error.message}`, {
      code: 'slurm-missing',
      hint: `run this on a host that has Slurm's commands, or give ${script} to sbatch there`,
    });
  }
  const id = stdout.trim().split(';')[0] ?? '';
  if (status === 0 && id !== '') return id;
  throw new FpdtError(`sbatch refuses ${script}: ${lastLine(stderr) || lastLine(stdout) || `exit code ${status}`}`, {
    code: 'slurm-refused',
    hint: "say with --slurm-options what this cluster wants, e.g. --slurm-options '--partition=gpu --time=8:00:00'",
  });
}

function sbatchOptions(text: string): readonly string[] {
  const words = text.split(/\s+/).filter((word) => word !== '');
  const bad = words.find((word) => !/^--[a-z]/.test(word));
  if (bad === undefined) return words;
  throw new FpdtError(`--slurm-options: '${bad}' is no option of sbatch in its long form`, {
    code: 'usage',
    hint: "write each as one word, e.g. '--partition=gpu --time=8:00:00'",
  });
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
