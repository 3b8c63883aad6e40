/** Rates that only a calibration tells: the catalog has what they stand for in other rates, or leaves it out. */
export const UNMEASURED = {
  kernelRates: [],
  turnWaitSeconds: 0,
  rankWaitSeconds: 0,
  rankSkew: 0,
  optimizerStepSeconds: 0,
  zeroGatherSeconds: 0,
  zeroReleaseSeconds: 0,
  zeroReduceSeconds: 0,
  turnOverheadSeconds: 0,
} as const;
