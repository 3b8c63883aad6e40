/** How long a collective may take before NCCL or gloo holds the run for hung and ends it. */
import type { Prediction } from '../predict/prediction.js';

/** Gloo's own limit; NCCL's is a third of it, counted from the host's enqueue, far ahead of the device. */
const LEAST_SECONDS = 1800;
const STEP_PATIENCE = 3;

export function collectiveTimeoutSeconds({ stepSeconds }: Pick<Prediction, 'stepSeconds'>): number {
  return Math.max(LEAST_SECONDS, Math.ceil(STEP_PATIENCE * stepSeconds));
}
