/** Ends a test that hangs. Far above what any takes on any machine: how fast a machine is must not decide. */
export const PATIENCE_MS = 600_000;
