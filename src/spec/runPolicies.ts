/** What becomes of a run whose checkpoint cannot be written. */
export const SAVE_POLICIES = ['stop', 'continue'] as const;
/** What a NaN or an infinity in the loss or a gradient does: end the run, or leave the weights as they are in that step. */
export const NON_FINITE_POLICIES = ['stop', 'skip'] as const;
