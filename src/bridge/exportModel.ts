/** Writes the model that a run of a plan starts from as a Hugging Face folder, in one Python process. */

import { join, resolve } from 'node:path';
import * as z from 'zod';
import { callPython } from './pythonCall.js';
import { PYTHON_FOLDER, resolvePython, SETUP_HINT } from './python.js';

export interface ExportOptions {
  /** Plan file. */
  readonly plan: string;
  /** Folder to write, new or empty. */
  readonly output: string;
  /** Hugging Face folder with the weights; left out: those of the plan's seed. */
  readonly weights?: string | undefined;
  readonly python?: string | undefined;
}

export interface ExportedModel {
  readonly numWeights: number;
  readonly bytes: number;
}

const answerSchema = z.strictObject({ numWeights: z.int().nonnegative(), bytes: z.int().nonnegative() });

/** A slow disk uses no processor. */
const IDLE_SECONDS = 600;

/** The weights are in the plan's dtype and its config is that of the plan. Throws `python-call-failed` with what Python says. */
export async function exportModel({ plan, output, weights, python }: ExportOptions): Promise<ExportedModel> {
  const answer = await callPython({
    python: resolvePython(python),
    file: join(PYTHON_FOLDER, 'fpdt', 'export.py'),
    name: 'export_plan',
    arguments: { plan: resolve(plan), output: resolve(output), weights: weights === undefined ? null : resolve(weights) },
    idleSeconds: IDLE_SECONDS,
    hint: SETUP_HINT,
  });
  return answerSchema.parse(answer);
}
