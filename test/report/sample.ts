/** A small plan and a run of it that kept to it, for report tests. */
import type { RunResult, StepResult } from '../../src/bridge/runResult.js';
import type { MemoryLedger, PoolLedger } from '../../src/memory/ledger.js';
import type { ReportPlan } from '../../src/report/compare.js';
import { rateOrigins } from '../../src/predict/rateOrigins.js';
import type { RunSpec } from '../../src/spec/types.js';
import { CLUSTER } from '../plan/samplePlan.js';

const MIB = 2 ** 20;

function pool(name: string, kind: PoolLedger['kind'], peakBytes: number, loadBytes = 0): PoolLedger {
  return {
    pool: name,
    kind,
    capacityBytes: 1024 * MIB,
    reserveBytes: 0,
    persistent: [],
    instants: [],
    load: { name: 'load', items: [], totalBytes: loadBytes },
    peakBytes,
    peakInstant: 'layerBackward',
    fits: true,
  };
}

const MEMORY: MemoryLedger = {
  kind: 'memoryLedger',
  fits: true,
  pools: [pool('hbm', 'device', 100 * MIB, 40 * MIB), pool('host', 'pinned', 10 * MIB), pool('disk', 'file', 0)],
};

const RUN: RunSpec = {
  kind: 'run',
  seqLen: 1000,
  paddedSeqLen: 1000,
  rowTile: 1,
  sequenceParallelSize: 2,
  dataParallelSize: 1,
  policy: 'auto',
  segmentLayers: 1,
  prefetchDepth: 2,
  hbmReserve: 0,
  dtype: 'float32',
  zeroStage: 3,
  gradientAccumulationSteps: 1,
  lossScale: 1,
  numSteps: 3,
  seed: 0,
};

export const PLAN: ReportPlan = {
  run: RUN,
  memory: MEMORY,
  prediction: {
    kind: 'prediction',
    stepSeconds: 2,
    tokensPerSecond: 500,
    exposedCopySeconds: 0,
    hostBoundSeconds: 0,
    isHostBound: false,
    sections: [],
    byKind: { attn: { count: 4, seconds: 1.5 }, pre: { count: 2, seconds: 0.4 }, copy: { count: 3, seconds: 0 } },
    copiedBytes: { h2d: 4096, d2h: 2048, read: 0 },
    outsideSeconds: 0.05,
    rateOrigins: rateOrigins(CLUSTER),
    mfu: { causalModel: 0.4, causalHardware: 0.5, fullModel: 0.7, fullHardware: 0.9 },
  },
};

/** Memory is measured in every step but the first. */
export function step(index: number, changes: Partial<StepResult> = {}): StepResult {
  return {
    step: index,
    loss: 5 - index / 10,
    learningRate: 1e-4,
    gradientNorm: 0.75,
    seconds: 2.1,
    tokens: 1000,
    poolBytes: { hbm: 99 * MIB, host: 10 * MIB },
    memoryMeasured: index > 0,
    opsTimed: true,
    copiedBytes: { h2d: 4096, d2h: 2048 },
    byKind: { attn: { count: 4, seconds: 1.6 }, pre: { count: 2, seconds: 0.3 }, gather: { count: 1, seconds: 0.1 } },
    idleSeconds: 0.1,
    nonFinite: [],
    nonFinitePlace: null,
    lossScale: 1,
    skipped: false,
    ...changes,
  };
}

export function result(steps: readonly StepResult[], changes: Partial<RunResult> = {}): RunResult {
  const {
    step: _step,
    loss: _loss,
    learningRate: _rate,
    gradientNorm: _norm,
    lossScale: _scale,
    skipped: _skipped,
    ...last
  } = steps.at(-1) ?? step(0);
  const numSkipped = steps.filter(({ skipped }) => skipped).length;
  const facts = {
    digest: 'd'.repeat(64),
    numRanks: 2,
    steps,
    numSkipped,
    versions: {},
    kernels: {},
    loadSeconds: 3,
    loadPoolBytes: { hbm: 39 * MIB },
  };
  const more = { evaluations: [], communicatorBytes: null, nextStep: steps.length, isStopped: false, checkpoints: [] };
  return { kind: 'runResult', ...last, ...facts, ...more, ...changes };
}
