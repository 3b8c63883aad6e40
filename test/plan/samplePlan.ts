/** A small plan with every kind of field, for tests of encoding, files and summaries: the schedule of sampleText.ts, numbers made up. */
import { sampleCode } from '../catalog/sampleCode.js';
import type { MemoryLedger, PoolLedger } from '../../src/memory/ledger.js';
import { INSTANTS, LOAD } from '../../src/memory/ledger.js';
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan, UnsealedPlan } from '../../src/plan/executionPlan.js';
import type { Prediction } from '../../src/predict/prediction.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Attribute } from '../../src/schedule/op.js';
import { UNMEASURED } from '../../src/catalog/unmeasured.js';
import { rateOrigins } from '../../src/predict/rateOrigins.js';
import { programFromText } from '../../src/schedule/programText.js';
import { sectionFromText } from '../../src/schedule/text.js';
import { DTYPE_BYTES, type Dtype } from '../../src/spec/dtype.js';
import type { Link, Pool } from '../../src/spec/pools.js';
import type { LayerStrategy, Strategy } from '../../src/spec/strategy.js';
import type { ClusterSpec, ModelSpec, ParameterTable, ParameterView, Rates, RunSpec } from '../../src/spec/types.js';
import { BUFFERS, PROGRAM, SECTIONS } from './sampleText.js';

const RATES: Rates = {
  matmulFlops: 1e9,
  attentionForwardFlops: 5e8,
  attentionBackwardFlops: 4e8,
  memoryBytes: 1e9,
  h2dBytes: 1e8,
  d2hBytes: 5e7,
  duplexBytes: 0,
  commBytes: 1e8,
  gatherBytes: 1e8,
  reduceBytes: 1e8,
  commLatencySeconds: 1e-4,
  ...UNMEASURED,
  launchSeconds: 1e-6,
  attentionKernels: [],
  attentionHalfKeys: 0,
  interNodeBytes: 5e8,
  interNodeLatencySeconds: 5e-4,
  offloadedOptimizerSecondsPerParameter: 1e-8,
  optimizerSecondsPerParameter: 1e-8,
  stepOverheadSeconds: 0.01,
  hostSecondsPerOp: 1e-5,
  hostSecondsPerKernel: 2e-6,
  diskReadBytes: 3e9,
  diskWriteBytes: 2e9,
};

export const CLUSTER: ClusterSpec = {
  kind: 'cluster',
  name: '2x test',
  device: 'cuda',
  numRanks: 2,
  ranksPerNode: 2,
  hbmBytes: 1 << 30,
  hostBytes: 2 ** 31,
  diskBytes: 2 ** 30,
  overheads: [{ name: 'context', bytes: 1024, provenance: 'assumed', source: 'made up' }],
  rates: RATES,
  ratesProvenance: 'assumed',
  ratesSource: 'made up',
  peakFlops: 2e9,
};

const MODEL: ModelSpec = {
  kind: 'model',
  family: 'llama',
  numLayers: 3,
  hiddenSize: 8,
  numHeads: 2,
  numKvHeads: 2,
  headDim: 4,
  vocabSize: 32,
  tieWordEmbeddings: false,
  windows: [null, null, null],
  code: sampleCode({ layers: 3, hidden: 8, heads: 2, kvHeads: 2, mlpWidth: 16, vocab: 32 }),
  hfConfig: { rms_norm_eps: 1e-6, name: 'müll ☃', rope_scaling: null, num_hidden_layers: 3 },
};

const RUN: RunSpec = {
  kind: 'run',
  seqLen: 60,
  paddedSeqLen: 64,
  rowTile: 1,
  sequenceParallelSize: 2,
  dataParallelSize: 1,
  policy: 'auto',
  segmentLayers: 2,
  prefetchDepth: 2,
  hbmReserve: 0,
  dtype: 'float32',
  zeroStage: 3,
  gradientAccumulationSteps: 1,
  lossScale: 1,
  numSteps: 4,
  seed: 7,
};

const KEPT: Omit<LayerStrategy, 'layers' | 'segments' | 'attentionOutput'> = {
  keyValues: 'hbm',
  keyValueGradients: 'hbm',
  checkpoints: 'hbm',
  backwardOrder: 'queryOuterDescending',
};

const STRATEGY: Strategy = {
  kind: 'strategy',
  policy: 'auto',
  numChunks: 2,
  chunkTokens: 32,
  localChunkTokens: 16,
  kvTileChunks: 1,
  numLossTiles: 1,
  numTokenTiles: 1,
  prefetchDepth: 2,
  hiddenGradients: 'hbm',
  layers: [
    { layers: [0, 2], attentionOutput: 'hbm', segments: [2], ...KEPT },
    { layers: [2, 3], attentionOutput: 'disk', segments: [1], ...KEPT },
  ],
};

const WEIGHTS = [
  ['input_layernorm', [8]],
  ['self_attn.q_proj', [8, 8]],
  ['self_attn.k_proj', [8, 8]],
  ['self_attn.v_proj', [8, 8]],
  ['self_attn.o_proj', [8, 8]],
  ['post_attention_layernorm', [8]],
  ['mlp.gate_proj', [16, 8]],
  ['mlp.up_proj', [16, 8]],
  ['mlp.down_proj', [8, 16]],
] as const;

const PARAMETERS: ParameterTable = {
  layers: [{ weights: views(WEIGHTS), numElements: 656 }],
  head: views([
    ['model.norm', [8]],
    ['lm_head', [32, 8]],
  ]),
  embed: views([['model.embed_tokens', [32, 8]]]),
  numHeadNormElements: 8,
  numHeadElements: 264,
  numEmbedElements: 256,
  numModelParameters: 3 * 656 + 264 + 256,
  numTrainedParameters: 3 * 656 + 264 + 256,
};

function views(weights: readonly (readonly [string, readonly number[]])[]): readonly ParameterView[] {
  let offset = 0;
  return weights.map(([name, shape]) => {
    const numel = product(shape);
    const view = { name: `${name}.weight`, shape, offset, numel, trainable: true };
    offset += numel;
    return view;
  });
}

const POOL_KINDS = { hbm: 'device', host: 'pinned', disk: 'file' } as const;
const LINKS: readonly Link[] = [
  { from: 'host', to: 'hbm', stream: 'h2d' },
  { from: 'hbm', to: 'host', stream: 'd2h' },
  { from: 'disk', to: 'host', stream: 'read' },
  { from: 'host', to: 'disk', stream: 'write' },
];
export const STREAMS = ['compute', 'comm', ...LINKS.map(({ stream }) => stream)];
const ATTRIBUTES: readonly Attribute[] = [{ mask: { kind: 'causal' } }, { mask: { kind: 'full' } }];

export function samplePlan(changes: Partial<UnsealedPlan> = {}): ExecutionPlan {
  const { pools, buffers } = layOut();
  const sections = SECTIONS.map((text) => sectionFromText(text, { buffers, attributes: ATTRIBUTES }));
  const table = (name: string, buffer: number) => ({ name, dtype: 'int64', capacity: 32, buffer }) as const;
  return sealPlan({
    kind: 'executionPlan',
    version: 2,
    model: MODEL,
    cluster: CLUSTER,
    run: RUN,
    deepspeed: {
      zero_optimization: { stage: 3 },
      optimizer: { type: 'AdamW', params: { eps: 1e-8, lr: 1e-3 } },
      gradient_clipping: 1,
      steps_per_print: 1e21,
    },
    strategy: STRATEGY,
    parameters: PARAMETERS,
    layout: { sequenceGroups: [[0, 1]], heads: { query: [[0], [1]], keyValue: [[0], [1]] } },
    pools,
    links: LINKS,
    streams: STREAMS,
    kernels: { attn: 'reference', attnBwd: 'reference' },
    collectiveTimeoutSeconds: 1800,
    buffers,
    attributes: ATTRIBUTES,
    tables: [table('tokenIds', 0), table('positions', 1), table('labels', 2)],
    sections,
    programs: { train: programFromText(PROGRAM, { sections, streams: STREAMS }) },
    memory: sampleLedger(),
    prediction: samplePrediction(),
    ...changes,
  });
}

/** Buffers one after the other in each pool. */
function layOut(): { readonly pools: readonly Pool[]; readonly buffers: readonly Buffer[] } {
  const buffers: Buffer[] = [];
  const pools = Object.entries(BUFFERS).map(([pool, texts]): Pool => {
    let offset = 0;
    for (const text of texts) {
      const buffer = toBuffer(text, buffers.length, pool, offset);
      buffers.push(buffer);
      offset += buffer.instances * buffer.instanceBytes;
    }
    return { name: pool, kind: POOL_KINDS[pool as keyof typeof POOL_KINDS], bytes: offset };
  });
  return { pools, buffers };
}

function toBuffer(text: string, id: number, pool: string, offset: number): Buffer {
  const [, name = '', dtype = '', dims = '', instances = '1', step] = /^(\S+) (\w+) \[([\d,]+)\](?: x(\d+))?( step)?$/.exec(text) ?? [];
  const shape = dims.split(',').map(Number);
  const alignment = pool === 'hbm' ? 512 : 4096;
  const bytes = product(shape) * DTYPE_BYTES[dtype as Dtype];
  return {
    id,
    name,
    pool,
    dtype: dtype as Dtype,
    shape,
    strides: shape.map((_, dim) => product(shape.slice(dim + 1))),
    instances: Number(instances),
    instanceBytes: Math.ceil(bytes / alignment) * alignment,
    offset,
    scope: step === undefined ? 'call' : 'step',
  };
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((all, size) => all * size, 1);
}

/** Host memory is 93 MiB short. */
function sampleLedger(): MemoryLedger {
  const pool = (name: keyof typeof POOL_KINDS, capacityBytes: number, persistentBytes = 600 << 20): PoolLedger => ({
    pool: name,
    kind: POOL_KINDS[name],
    capacityBytes,
    reserveBytes: 0,
    persistent: [{ name: 'model states', bytes: persistentBytes, provenance: 'derived', note: '16 P / N' }],
    instants: INSTANTS.map((instant, i) => ({
      name: instant,
      items: [{ name: `scratch of ${instant}`, bytes: i << 20, provenance: 'derived', note: 'by formula' }],
      totalBytes: persistentBytes + (i << 20),
    })),
    load: { name: LOAD, items: [], totalBytes: 0 },
    peakBytes: persistentBytes + (5 << 20),
    peakInstant: 'optimizerStep',
    fits: persistentBytes + (5 << 20) <= capacityBytes,
  });
  return { kind: 'memoryLedger', fits: false, pools: [pool('hbm', 1 << 30), pool('host', 512 << 20), pool('disk', 1 << 30, 1 << 20)] };
}

function samplePrediction(): Prediction {
  const section = (name: string, runs: number, makespanSeconds: number, exposedCopySeconds = 0) => ({
    name,
    runs,
    makespanSeconds,
    busySeconds: Object.fromEntries(STREAMS.map((stream) => [stream, makespanSeconds / 2])),
    exposedCopySeconds,
  });
  return {
    kind: 'prediction',
    stepSeconds: 2,
    tokensPerSecond: 30,
    exposedCopySeconds: 0.1,
    hostBoundSeconds: 0.15,
    isHostBound: true,
    sections: [section('layerForward', 2, 0.2), section('layerBackward', 2, 0.5), section('layerBackward.1', 1, 0.59, 0.1)],
    byKind: { attn: { count: 9, seconds: 0.4 }, post: { count: 8, seconds: 0.2 } },
    copiedBytes: { h2d: 1152, d2h: 1152, read: 1152, write: 1152 },
    outsideSeconds: RATES.stepOverheadSeconds,
    rateOrigins: rateOrigins(CLUSTER),
    mfu: { causalModel: 0.4, causalHardware: 0.5, fullModel: 0.7, fullHardware: 0.9 },
  };
}
