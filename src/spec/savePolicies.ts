/** What becomes of a run whose checkpoint cannot be written. */
export const SAVE_POLICIES = ['stop', 'continue'] as const;
