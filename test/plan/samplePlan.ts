/** A small plan with every kind of field, for tests of encoding, files and summaries. */
import type { MemoryLedger, PoolLedger } from '../../src/memory/ledger.js';
import { INSTANTS } from '../../src/memory/ledger.js';
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { layoutBuffers } from '../../src/plan/layout.js';
import { buildSchedule } from '../../src/schedule/build.js';
import type { OpWork } from '../../src/schedule/cost.js';
import { predictRun } from '../../src/schedule/predict.js';
import type { ClusterSpec, PolicyName, Rates } from '../../src/spec/types.js';
import { smallContext } from '../schedule/context.js';

export const RATES: Rates = {
  matmulFlops: 1e9,
  attentionForwardFlops: 5e8,
  attentionBackwardFlops: 4e8,
  memoryBytes: 1e9,
  h2dBytes: 1e8,
  d2hBytes: 5e7,
  duplexBytes: 0,
  commBytes: 1e8,
  commLatencySeconds: 1e-4,
  launchSeconds: 1e-6,
  optimizerSecondsPerParameter: 1e-8,
  stepOverheadSeconds: 0.01,
};

export const CLUSTER: ClusterSpec = {
  kind: 'cluster',
  name: '2x test',
  device: 'cuda',
  numRanks: 2,
  ranksPerNode: 2,
  hbmBytes: 1 << 30,
  hostBytes: 1 << 31,
  overheads: [{ name: 'context', bytes: 1024, provenance: 'assumed', source: 'made up' }],
  rates: RATES,
  ratesProvenance: 'assumed',
  ratesSource: 'made up',
  peakFlops: 2e9,
};

/** 1000 FLOPs and as many bytes for every op. */
export const WORK: OpWork = { flops: () => 1000, bytes: () => 1000 };

export function samplePlan(policy: PolicyName = 'fpdt', numChunks = policy === 'ulysses' ? 1 : 4): ExecutionPlan {
  const context = smallContext(policy, numChunks);
  const { model, run, strategy, parameters } = context;
  const built = buildSchedule(context, (op) => (op.kind === 'post' ? 4096.5 : 0));
  const { buffers, arenas } = layoutBuffers(built.buffers, built.schedule);
  const deepspeed = {
    zero_optimization: { stage: 3 },
    optimizer: { type: 'AdamW', params: { eps: 1e-8, lr: 1e-3 } },
    steps_per_print: 1e21,
  };
  const hfConfig = { rms_norm_eps: 1e-6, name: 'müll ☃', rope_scaling: null };
  const prediction = predictRun({
    model,
    run,
    cluster: CLUSTER,
    strategy,
    parameters,
    buffers,
    schedule: built.schedule,
    deepspeed,
    work: WORK,
  });
  return sealPlan({
    kind: 'executionPlan',
    version: 1,
    model: { ...model, hfConfig },
    cluster: CLUSTER,
    run,
    deepspeed,
    strategy,
    parameters,
    headMap: {
      query: [
        [0, 1],
        [2, 3],
      ],
      keyValue: [[0], [1]],
    },
    arenas,
    buffers,
    schedule: built.schedule,
    memory: sampleLedger(),
    prediction,
  });
}

function sampleLedger(): MemoryLedger {
  const pool = (name: 'hbm' | 'host', capacityBytes: number): PoolLedger => ({
    pool: name,
    capacityBytes,
    persistent: [{ name: 'model states', bytes: 600 << 20, provenance: 'derived', note: '16 P / N' }],
    instants: INSTANTS.map((instant, i) => ({
      name: instant,
      items: [{ name: `scratch of ${instant}`, bytes: i << 20, provenance: 'derived', note: 'by formula' }],
      totalBytes: (600 + i) << 20,
    })),
    peakBytes: 605 << 20,
    peakInstant: 'optimizerStep',
    fits: 605 << 20 <= capacityBytes,
  });
  return { kind: 'memoryLedger', fits: false, hbm: pool('hbm', 1 << 30), host: pool('host', 512 << 20) };
}
