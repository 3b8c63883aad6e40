/** What a policy offers the solver: placements to try, in order, and how it cuts sequences and losses. */
import type { BackwardOrder } from '../../spec/strategy.js';
import type { ModelSpec, RunSpec } from '../../spec/types.js';

/** Names of the pools that placements are made of. */
export interface PoolNames {
  readonly device: string;
  readonly pinned: string;
}

/** Where a layer's tensors live, and the order of its backward; the same for all layers. */
export interface LayerPlacement {
  readonly keyValues: string;
  readonly keyValueGradients: string;
  readonly attentionOutput: string;
  readonly checkpoints: string;
  readonly backwardOrder: BackwardOrder;
}

export interface CandidateInput {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly pools: PoolNames;
}

export interface Policy {
  /** Most wanted first. */
  readonly placements: (pools: PoolNames) => readonly LayerPlacement[];
  /** Chunk counts to try, fewest first, where the user gave none. */
  readonly chunkCounts: (run: RunSpec) => readonly number[];
  /** Tiles of a chunk's loss, whose fp32 logits are `logitsBytes` together. */
  readonly lossTiles: (logitsBytes: number) => number;
  /** Tiles of the token-wise ops of a layer, of a rank's `localTokens` of a chunk. */
  readonly tokenTiles: (localTokens: number, hidden: number) => number;
}

/** Fetched chunk by chunk, attention ops grow with the square of this; 15M tokens are then 30,000 to a chunk. */
const MAX_CHUNKS = 512;
/** Chunks below this many tokens cost more in launches than they save, unless there are only a few. */
const MIN_CHUNK_TOKENS = 2048;
const ALWAYS_TRIED_CHUNKS = 8;

/** Doubling from `first` until chunks get small. */
export function doublingCounts(run: RunSpec, first: number): readonly number[] {
  const localTiles = Math.ceil(run.seqLen / run.sequenceParallelSize / run.rowTile);
  const most = Math.min(localTiles, MAX_CHUNKS, Math.max(ALWAYS_TRIED_CHUNKS, Math.floor(run.seqLen / MIN_CHUNK_TOKENS)));
  const counts: number[] = [];
  for (let count = first; count <= most || counts.length === 0; count *= 2) counts.push(count);
  return counts;
}
