/** The solver's choice, and what of it a user may force: chunk counts, and per range of layers where each tensor lives. */

/** Systems whose choices a policy fixes; `auto` leaves them to the solver. */
export const POLICIES = ['ulysses', 'ulysses-offload', 'alst', 'fpdt', 'auto'] as const;
export type PolicyName = (typeof POLICIES)[number];

/** In place of a pool: not kept, but formed again in backward. */
export const RECOMPUTE = 'recompute';

export const BACKWARD_ORDERS = ['queryOuterDescending', 'keyValueOuterAscending'] as const;
export type BackwardOrder = (typeof BACKWARD_ORDERS)[number];

/** What holds for the decoder layers [start, end). Places are names of pools. */
export interface LayerStrategy {
  readonly layers: readonly [start: number, end: number];
  /** Keys and values of a layer after the all-to-all. */
  readonly keyValues: string;
  /** Accumulators of their gradients. */
  readonly keyValueGradients: string;
  /** Attention output and lse of every layer: a pool, or RECOMPUTE. */
  readonly attentionOutput: string;
  /**
   * Where they are recomputed, those of a layer whose segment is rebuilt, from the rebuild to the layer's backward: a pool. RECOMPUTE, or
   * left out: formed a third time.
   */
  readonly rebuiltOutput?: string;
  /**
   * With rebuilt outputs that of a segment's last layer, which no successor's input is rebuilt from: backward is then the same section for all layers.
   * Left out: false, that layer's output is recomputed in its backward.
   */
  readonly rebuildsLast?: boolean;
  /**
   * Products inside of what follows attention in a layer (output projection, MLP) that its reverse needs, from forward on: a pool.
   * RECOMPUTE, or left out: formed again from the layer's input and the output of attention.
   */
  readonly internals?: string;
  /** Layer inputs kept for backward, one per segment. */
  readonly checkpoints: string;
  readonly backwardOrder: BackwardOrder;
  /** Lengths of the segments that share a checkpoint; they sum to the range's length. */
  readonly segments: readonly number[];
}

export interface Strategy {
  readonly kind: 'strategy';
  readonly policy: PolicyName;
  readonly numChunks: number;
  /** Global tokens of a chunk, C. */
  readonly chunkTokens: number;
  /** A rank's tokens of a chunk, c = C / P. */
  readonly localChunkTokens: number;
  /** Chunks of keys and values that travel, and are attended to, together where they are fetched. */
  readonly kvTileChunks: number;
  readonly numLossTiles: number;
  /** Pieces of rows that a token-wise op works through one after the other. */
  readonly numTokenTiles: number;
  /** Slots of a ring beyond those in use at once, plus one: two is a double buffer. */
  readonly prefetchDepth: number;
  /** Groups of a rank's heads that a layer attends to one after the other: k, v and their gradients are there of one. Left out: 1. */
  readonly headGroups?: number;
  /** Pool of the gradient of the hidden states. */
  readonly hiddenGradients: string;
  /** Ranges in order, from layer 0 to the last, without a gap. */
  readonly layers: readonly LayerStrategy[];
}

/** Layers [start, end) of a range are cut into segments of `segmentLayers`, the last one shorter where they do not divide. */
export function segmentLengths(numLayers: number, segmentLayers: number): readonly number[] {
  const numSegments = Math.ceil(numLayers / segmentLayers);
  return Array.from({ length: numSegments }, (_, i) => Math.min(segmentLayers, numLayers - i * segmentLayers));
}

export type ForcedLayerStrategy = Partial<Omit<LayerStrategy, 'layers'>> & Pick<LayerStrategy, 'layers'>;

/** Choices a user fixed; what is absent the solver chooses. */
export interface ForcedStrategy {
  readonly numChunks?: number;
  readonly kvTileChunks?: number;
  readonly numLossTiles?: number;
  readonly numTokenTiles?: number;
  readonly prefetchDepth?: number;
  readonly headGroups?: number;
  readonly hiddenGradients?: string;
  /** Cover every layer once, in order. */
  readonly layers?: readonly ForcedLayerStrategy[];
}

/** What of it is no option of the run as well. */
export type ForcedPlaces = Pick<ForcedStrategy, 'hiddenGradients' | 'layers'>;
