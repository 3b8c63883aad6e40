/** The solver's choice: chunk counts and where each tensor lives. Policies turn it into a schedule. */
import type { PolicyName } from '../spec/types.js';

export interface Strategy {
  readonly kind: 'strategy';
  readonly policy: PolicyName;
  readonly numChunks: number;
  /** Global tokens of a chunk, C. */
  readonly chunkTokens: number;
  /** A rank's tokens of a chunk, c = C / P. */
  readonly localChunkTokens: number;
  readonly numLossTiles: number;
  readonly segmentLayers: number;
  readonly prefetchDepth: number;
  /** Keys and values of a layer after the all-to-all. */
  readonly keyValues: 'hbm' | 'host';
  /** Attention output and lse of every layer: kept, or attention is recomputed in backward. */
  readonly attentionOutput: 'hbm' | 'host' | 'recompute';
  /** Layer inputs kept for backward, one per segment. */
  readonly checkpoints: 'hbm' | 'host';
  readonly backwardOrder: 'queryOuterDescending' | 'keyValueOuterAscending';
}
