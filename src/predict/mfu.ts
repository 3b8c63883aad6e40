/** Model FLOPs utilization of a step. */
import { maskPairs } from '../catalog/ops/index.js';
import type { ModelSpec, ParameterView } from '../spec/types.js';
import type { PredictInput } from './input.js';
import type { Mfu } from './prediction.js';

/** FLOPs of the ops that a step runs, recompute included. */
export interface HardwareFlops {
  readonly attention: number;
  readonly other: number;
}

/**
 * Model FLOPs per token: 6 per matmul parameter, 4 per one that does not train, and 12 H d per layer and key that causal attention
 * sees (forward 4, backward twice that), which are S / 2 on average where there is no window. Full attention counts double, as
 * published figures do.
 */
export function mfuOf(
  input: Pick<PredictInput, 'model' | 'run' | 'cluster' | 'parameters'>,
  stepSeconds: number,
  hardware: HardwareFlops,
): Mfu {
  const { model, run, cluster, parameters } = input;
  const perRankTokens = tokensPerStep(input) / cluster.numRanks;
  // A tied one is the table of tokens, which comes first; positions may have another.
  const lmHead = matmulFlops(model.tieWordEmbeddings ? parameters.embed.slice(0, 1) : parameters.head);
  const layers = parameters.layers.map(({ weights }) => matmulFlops(weights));
  const matmul = (model.code.classOf.reduce((sum, kind) => sum + (layers[kind] ?? 0), 0) + lmHead) * perRankTokens;
  const attention = 12 * keysPerToken(model, run.seqLen) * model.numHeads * model.headDim * perRankTokens;
  const share = (flops: number): number => flops / (stepSeconds * cluster.peakFlops);
  return {
    causalModel: share(matmul + attention),
    causalHardware: share(hardware.other + hardware.attention),
    fullModel: share(matmul + 2 * attention),
    fullHardware: share(hardware.other + 2 * hardware.attention),
  };
}

/** Tokens of the data, padding not counted. */
export function tokensPerStep({ run }: Pick<PredictInput, 'run'>): number {
  return run.seqLen * run.dataParallelSize * run.gradientAccumulationSteps;
}

/** Of a token, by matrices, not norms; the embedding is a look-up. */
function matmulFlops(views: readonly ParameterView[]): number {
  return views.reduce((sum, { shape, numel, trainable }) => (shape.length === 2 ? sum + (trainable ? 6 : 4) * numel : sum), 0);
}

/** Of all layers together. */
function keysPerToken({ windows }: ModelSpec, seqLen: number): number {
  const all = { start: 0, end: seqLen };
  return windows.reduce<number>(
    (sum, window) => sum + (window === null ? seqLen / 2 : maskPairs({ kind: 'window', window }, all, all) / seqLen),
    0,
  );
}
