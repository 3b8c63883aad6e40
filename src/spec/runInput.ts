/** What a user asks for, before defaults are filled in. */
import { z } from 'zod';
import { parseWith } from './parseJson.js';

const count = z.int().min(1);

const schema = z.strictObject({
  seqLen: z.union([z.number(), z.string()]),
  sequenceParallelSize: count.optional(),
  dataParallelSize: count.optional(),
  policy: z.enum(['ulysses', 'fpdt', 'auto']).optional(),
  numChunks: count.optional(),
  segmentLayers: count.optional(),
  numLossTiles: count.optional(),
  prefetchDepth: count.optional(),
  dtype: z.enum(['float32', 'bfloat16']).optional(),
  lossScale: z.number().positive().optional(),
  numSteps: count.optional(),
  seed: z.int().min(0).optional(),
});

/** Every field but `seqLen` may be left out. `seqLen` is a number or text such as `2M`. */
export interface RunInput {
  readonly seqLen: number | string;
  readonly sequenceParallelSize?: number | undefined;
  readonly dataParallelSize?: number | undefined;
  readonly policy?: 'ulysses' | 'fpdt' | 'auto' | undefined;
  readonly numChunks?: number | undefined;
  readonly segmentLayers?: number | undefined;
  /** Pieces that the loss of one chunk is computed in. */
  readonly numLossTiles?: number | undefined;
  readonly prefetchDepth?: number | undefined;
  readonly dtype?: 'float32' | 'bfloat16' | undefined;
  /**
   * Static scale of the loss, 1 when left out. DeepSpeed has one of its own for fp16 weights only (`fp16.loss_scale`;
   * CreateLossScaler in runtime/fp16/loss_scaler.py uses 1 for every other dtype), so the worker sets this one through
   * the optimizer's `override_loss_scale`, or by itself where the engine has none.
   */
  readonly lossScale?: number | undefined;
  readonly numSteps?: number | undefined;
  readonly seed?: number | undefined;
}

export function parseRunInput(input: unknown): RunInput {
  return parseWith(schema, input, 'run');
}
