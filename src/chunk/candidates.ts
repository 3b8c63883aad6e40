/** Strategies worth trying, by policy. Each inner list is one placement, fewest chunks first. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import { padSeqLen } from '../spec/sizes.js';
import type { ModelSpec, RunSpec } from '../spec/types.js';
import type { Strategy } from './strategy.js';

/** DeepSpeed's `fpdt_layer.py`: default of chunk_size, in global tokens. */
const FPDT_CHUNK_TOKENS = 65536;
/** Megatron-DeepSpeed's `gpt_model.py` computes the loss of a chunk in 32 pieces. */
const FPDT_LOSS_TILES = 32;
/** `auto`: the fp32 logits of one loss tile stay below this. */
const LOGITS_TILE_BYTES = 128 * 1024 ** 2;
const SMALLEST_LOGITS_BYTES = 1024 ** 2;

/** Chunks below this many tokens cost more in launches than they save, unless there are only a few. */
const MIN_CHUNK_TOKENS = 2048;
const ALWAYS_TRIED_CHUNKS = 8;
/** `auto` tries no chunk of more tokens per rank: projections of that many fill a GPU, and its loss alone would be thousands of ops. */
const MOST_LOCAL_CHUNK_TOKENS = 256 * 1024;
/** Fetched chunk by chunk, attention ops grow with the square of this; 15M tokens are then 30,000 to a chunk. */
const MAX_CHUNKS = 512;

type Placement = Pick<Strategy, 'keyValues' | 'attentionOutput' | 'checkpoints' | 'backwardOrder'>;

export interface CandidateInput {
  readonly model: ModelSpec;
  readonly run: RunSpec;
}

export function candidates(input: CandidateInput): readonly (readonly Strategy[])[] {
  const counts = chunkCounts(input.run);
  return placements(input.run.policy).map((placement) => counts.map((numChunks) => toStrategy(input, placement, numChunks)));
}

const descending = 'queryOuterDescending' as const;

/** What each system does; for `auto`, what is fastest first and what needs least memory last. */
function placements(policy: RunSpec['policy']): readonly Placement[] {
  if (policy === 'ulysses') {
    return [{ keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'hbm', backwardOrder: descending }];
  }
  if (policy === 'fpdt') {
    return [{ keyValues: 'host', attentionOutput: 'recompute', checkpoints: 'host', backwardOrder: 'keyValueOuterAscending' }];
  }
  return [
    { keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'hbm', backwardOrder: descending },
    { keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'host', backwardOrder: descending },
    { keyValues: 'hbm', attentionOutput: 'host', checkpoints: 'host', backwardOrder: descending },
    { keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'hbm', backwardOrder: descending },
    { keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'host', backwardOrder: descending },
    { keyValues: 'host', attentionOutput: 'host', checkpoints: 'host', backwardOrder: descending },
    { keyValues: 'host', attentionOutput: 'recompute', checkpoints: 'host', backwardOrder: descending },
  ];
}

/** A user's count stands alone; Ulysses has one chunk; the others double until chunks get small. */
function chunkCounts(run: RunSpec): readonly number[] {
  if (run.numChunks !== undefined) return [run.numChunks];
  if (run.policy === 'ulysses') return [1];
  const localTokens = Math.ceil(run.seqLen / run.sequenceParallelSize);
  const first = Math.ceil(run.policy === 'fpdt' ? run.seqLen / FPDT_CHUNK_TOKENS : localTokens / MOST_LOCAL_CHUNK_TOKENS);
  const most = Math.min(localTokens, MAX_CHUNKS, Math.max(ALWAYS_TRIED_CHUNKS, Math.floor(run.seqLen / MIN_CHUNK_TOKENS)));
  const counts: number[] = [];
  for (let count = first; count <= most || counts.length === 0; count *= 2) counts.push(count);
  return counts;
}

function toStrategy({ model, run }: CandidateInput, placement: Placement, numChunks: number): Strategy {
  const chunkTokens = padSeqLen(run.seqLen, numChunks, run.sequenceParallelSize) / numChunks;
  const localChunkTokens = chunkTokens / run.sequenceParallelSize;
  return {
    kind: 'strategy',
    policy: run.policy,
    numChunks,
    chunkTokens,
    localChunkTokens,
    numLossTiles: Math.min(localChunkTokens, run.numLossTiles ?? defaultLossTiles(run, localChunkTokens * model.vocabSize)),
    segmentLayers: run.segmentLayers,
    prefetchDepth: run.prefetchDepth,
    ...placement,
  };
}

/** Ulysses computes the loss of its one chunk at once. Logits of less than a MiB are not worth cutting. */
function defaultLossTiles({ policy }: RunSpec, numLogits: number): number {
  const bytes = numLogits * DTYPE_BYTES.float32;
  if (policy === 'ulysses') return 1;
  if (policy === 'fpdt') return Math.min(FPDT_LOSS_TILES, Math.ceil(bytes / SMALLEST_LOGITS_BYTES));
  return Math.ceil(bytes / LOGITS_TILE_BYTES);
}
