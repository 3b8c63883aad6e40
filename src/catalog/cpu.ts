/** The CPU device: every rank a process on one machine, both pools in its memory. For tests and for learning. */
import { type DeviceEntry, GIB } from './gpus.js';
import { UNMEASURED } from './unmeasured.js';

/** Rates of one core of a server CPU, order of magnitude only; a calibration file replaces them. */
export const CPU: DeviceEntry = {
  name: 'cpu',
  device: 'cpu',
  nvmlNames: [],
  hbmBytes: 4 * GIB,
  hostBytes: 4 * GIB,
  ranksPerNode: 64,
  peakFlops: 1e11,
  rates: {
    matmulFlops: 3e10,
    attentionForwardFlops: 1e10,
    attentionBackwardFlops: 1e10,
    attentionKernels: [],
    attentionHalfKeys: 0,
    memoryBytes: 5e9,
    h2dBytes: 5e9,
    d2hBytes: 5e9,
    duplexBytes: 5e9,
    commBytes: 5e8,
    gatherBytes: 5e8,
    reduceBytes: 5e8,
    commLatencySeconds: 5e-4,
    interNodeBytes: 1e8,
    interNodeLatencySeconds: 1e-3,
    launchSeconds: 5e-6,
    optimizerSecondsPerParameter: 1e-8,
    stepOverheadSeconds: 0.02,
    ...UNMEASURED,
    hostSecondsPerOp: 2e-5,
    // One thread issues and computes: launchSeconds holds both.
    hostSecondsPerKernel: 0,
    diskReadBytes: 1e9,
    diskWriteBytes: 5e8,
  },
  nodeOptimizerSecondsPerParameter: 1e-8,
  ratesProvenance: 'assumed',
  ratesSource: 'order of magnitude of one server core; calibrate for a real machine',
  cublasWorkspaceBytes: 0,
};
