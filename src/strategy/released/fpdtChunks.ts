/** How FPDT as released cuts a sequence. */
import { forwards } from './costs.js';
import type { ReleasedSetting } from './setting.js';

/** FPDT_Attention: default of chunk_size, in tokens of all ranks. */
export const CHUNK_TOKENS = 65536;
/** Megatron-DeepSpeed, transformer.py and gpt_model.py: tiles of the MLP and of the loss to a chunk of attention. */
export const MLP_TILES = 2;
export const LOSS_TILES = 32;
/** No expandable segments: reserved over allocated bytes, median of published runs (SimuMax). */
export const FRAGMENTATION = 0.04;

export interface Chunks {
  readonly chunks: number;
  /** Of queries and keys, in which attention is computed. */
  readonly pairs: number;
  /** Tokens of a chunk, of all ranks. */
  readonly chunkTokens: number;
  /** Forwards of a layer. */
  readonly times: number;
}

export function chunksOf(setting: ReleasedSetting): Chunks {
  const { tokens } = setting;
  const chunks = numChunks(tokens);
  return { chunks, pairs: (chunks * (chunks + 1)) / 2, chunkTokens: tokens / chunks, times: forwards(setting) };
}

function numChunks(tokens: number): number {
  return Math.max(1, Math.floor(tokens / CHUNK_TOKENS));
}
