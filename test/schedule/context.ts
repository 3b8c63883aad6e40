/** Small policy contexts for schedule tests. */
import type { Strategy } from '../../src/chunk/strategy.js';
import type { PolicyContext } from '../../src/schedule/policies/index.js';
import type { ModelSpec, ParameterTable, PolicyName, RunSpec } from '../../src/spec/types.js';

export const STRATEGIES: Readonly<Record<PolicyName, Partial<Strategy>>> = {
  ulysses: { keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'hbm', backwardOrder: 'queryOuterDescending' },
  fpdt: { keyValues: 'host', attentionOutput: 'recompute', checkpoints: 'host', backwardOrder: 'keyValueOuterAscending' },
  auto: { keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'hbm', backwardOrder: 'queryOuterDescending' },
};

export function smallContext(policy: PolicyName, numChunks: number, more: Partial<Strategy> = {}): PolicyContext {
  const seqLen = 64 * numChunks;
  const model: ModelSpec = {
    kind: 'model',
    family: 'llama',
    numLayers: 4,
    hiddenSize: 32,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 8,
    mlpWidth: 64,
    vocabSize: 64,
    tieWordEmbeddings: false,
    hfConfig: {},
  };
  const run: RunSpec = {
    kind: 'run',
    seqLen,
    paddedSeqLen: seqLen,
    sequenceParallelSize: 2,
    dataParallelSize: 1,
    policy,
    segmentLayers: 1,
    prefetchDepth: 2,
    dtype: 'float32',
    zeroStage: 3,
    gradientAccumulationSteps: 1,
    lossScale: 1,
    numSteps: 1,
    seed: 0,
  };
  const parameters: ParameterTable = {
    layer: [],
    numPreElements: 100,
    head: [],
    embed: [],
    numLayerElements: 300,
    numHeadElements: 80,
    numEmbedElements: 70,
    numModelParameters: 1350,
  };
  const strategy: Strategy = {
    kind: 'strategy',
    policy,
    numChunks,
    chunkTokens: 64,
    localChunkTokens: 32,
    numLossTiles: 2,
    segmentLayers: 1,
    prefetchDepth: 2,
    keyValues: 'hbm',
    attentionOutput: 'hbm',
    checkpoints: 'hbm',
    backwardOrder: 'queryOuterDescending',
    ...STRATEGIES[policy],
    ...more,
  };
  return { model, run, parameters, strategy };
}
