/** The resolved run: every default filled in, checked against model, cluster and ds_config. */
import type { ParsedDeepSpeed } from './deepspeedConfig.js';
import { FpdtError } from './errors.js';
import { resolveParallelism } from './parallelism.js';
import { type RunInput, parseRunInput } from './runInput.js';
import { padSeqLen, parseTokens } from './sizes.js';
import type { ClusterSpec, ModelSpec, RunSpec } from './types.js';

export { type RunInput, parseRunInput } from './runInput.js';

/** Slots of a double buffer: the next fetch runs while a chunk is used. */
const DEFAULT_PREFETCH_DEPTH = 2;

export function parseRun(input: unknown, model: ModelSpec, cluster: ClusterSpec, deepspeed: ParsedDeepSpeed): RunSpec {
  const run = parseRunInput(input);
  const parallelism = resolveParallelism(run, model, cluster, deepspeed.sequenceParallelSize);
  const seqLen = parseTokens(run.seqLen, 'run.seqLen');
  const { sequenceParallelSize } = parallelism;
  checkChunks(run, seqLen, sequenceParallelSize);
  const segmentLayers = run.segmentLayers ?? 1;
  checkSegments(segmentLayers, model);
  return {
    kind: 'run',
    seqLen,
    paddedSeqLen: padSeqLen(seqLen, run.numChunks ?? 1, sequenceParallelSize),
    ...parallelism,
    policy: run.policy ?? 'auto',
    ...(run.numChunks === undefined ? {} : { numChunks: run.numChunks }),
    segmentLayers,
    ...(run.numLossTiles === undefined ? {} : { numLossTiles: run.numLossTiles }),
    prefetchDepth: run.prefetchDepth ?? DEFAULT_PREFETCH_DEPTH,
    dtype: deepspeed.dtype,
    zeroStage: deepspeed.zeroStage,
    gradientAccumulationSteps: deepspeed.gradientAccumulationSteps,
    lossScale: run.lossScale ?? 1,
    numSteps: run.numSteps ?? 1,
    seed: run.seed ?? 0,
  };
}

function checkChunks({ numChunks }: RunInput, seqLen: number, sequenceParallelSize: number): void {
  const most = Math.ceil(seqLen / sequenceParallelSize);
  if (numChunks === undefined || numChunks <= most) return;
  throw new FpdtError(`run.numChunks ${numChunks} is more than the ${most} tokens each rank holds`, {
    code: 'too-many-chunks',
    hint: `numChunks can be at most ${most} for ${seqLen} tokens on ${sequenceParallelSize} ranks`,
  });
}

function checkSegments(segmentLayers: number, { numLayers }: ModelSpec): void {
  if (numLayers % segmentLayers === 0) return;
  const legal = Array.from({ length: numLayers }, (_, i) => i + 1).filter((size) => numLayers % size === 0);
  throw new FpdtError(`run.segmentLayers ${segmentLayers} must divide the model's ${numLayers} layers`, {
    code: 'bad-segment',
    hint: `use one of ${legal.join(', ')}`,
  });
}
