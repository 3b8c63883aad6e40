/** Where a run saves its state and what it goes on from: options checked before any rank is started. */

import { FpdtError } from '../spec/errors.js';
import { isFolder } from '../spec/jsonFile.js';
import type { RunOptions } from './runOptions.js';

export interface CheckpointChoices {
  /** Folder for checkpoints of the training state; one is written when the run ends or is stopped, too. */
  readonly checkpoint?: string | undefined;
  /** Steps between two checkpoints; left out: none but at the end. */
  readonly every?: number | undefined;
  /** How many of the newest stay; default 3. */
  readonly keep?: number | undefined;
  /** What becomes of the run when a checkpoint cannot be written; default stop. */
  readonly onSaveFailure?: NonNullable<RunOptions['checkpoint']>['onSaveFailure'] | undefined;
  /** A checkpoint to go on from; `auto`: the newest sound one of `checkpoint`, or the start where there is none. */
  readonly resume?: string | undefined;
  /** How many times ranks that died are started again from the newest checkpoint; default 0. */
  readonly restarts?: number | undefined;
}

export const DEFAULT_KEEP = 3;
const NEED_FOLDER = ['every', 'keep', 'onSaveFailure', 'restarts'] as const;

export function checkpointOptions(choices: CheckpointChoices): Pick<RunOptions, 'checkpoint' | 'resume'> {
  const { checkpoint: folder, every, keep, onSaveFailure, resume } = choices;
  const needing = NEED_FOLDER.find((name) => choices[name] !== undefined) ?? (resume === 'auto' ? 'resume' : undefined);
  if (folder === undefined && needing !== undefined) {
    throw new FpdtError(`run option ${needing} is about checkpoints, but there is no folder for them`, {
      code: 'invalid-option',
      hint: `give --checkpoint DIR, or leave ${needing} out`,
      details: { option: needing },
    });
  }
  const checkpoint =
    folder === undefined ? null : { folder, every: every ?? null, keep: keep ?? DEFAULT_KEEP, onSaveFailure: onSaveFailure ?? 'stop' };
  return { checkpoint, resume: resume === undefined ? null : resumeFrom(resume) };
}

/** How ranks that died go on: from the newest checkpoint that is there by now, or as the run began. */
export function afterDeath({ resume, ...options }: RunOptions): RunOptions {
  return { ...options, resume: { newest: true, path: resume?.path ?? null } };
}

function resumeFrom(resume: string): NonNullable<RunOptions['resume']> {
  if (resume === 'auto') return { newest: true, path: null };
  if (isFolder(resume)) return { newest: false, path: resume };
  throw new FpdtError(`resume: there is no folder '${resume}'`, {
    code: 'checkpoint-missing',
    hint: 'give the folder of a checkpoint, such as saved/step-00000010, or auto',
    details: { resume },
  });
}
