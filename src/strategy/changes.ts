/** Changes to a request that does not fit, the smallest first. */
import { sharesHeads } from '../spec/parallelism.js';
import { padSeqLen } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import type { ModelSpec, RunSpec } from '../spec/types.js';
import type { BuildInput as Request } from './setting.js';

export interface Change {
  readonly name: (strategy: Strategy) => string;
  readonly input: Request;
}

const MAX_DOUBLINGS = 6;
const MAX_HALVINGS = 12;
const MIN_SEQ_LEN = 1024;

/** The solver's own chunk count, then the policy `auto`, fewer checkpoints, more ranks, shorter sequences. */
export function changes(request: Request): readonly Change[] {
  const { run } = request;
  const open = withRun(request, { ...withoutChunks(run), policy: 'auto' });
  return [
    ...(run.numChunks === undefined || run.policy === 'ulysses' ? [] : [moreChunks(request)]),
    ...(run.policy === 'auto' ? [] : [{ name: ({ numChunks }: Strategy) => `policy=auto (numChunks=${numChunks})`, input: open }]),
    ...longerSegments(open),
    ...moreRanks(open),
    ...shorter(open),
  ];
}

function moreChunks(request: Request): Change {
  return { name: ({ numChunks }) => `numChunks=${numChunks}`, input: withRun(request, withoutChunks(request.run)) };
}

/** One checkpoint for k layers: less memory, one more forward of k - 1 of them. */
function longerSegments(request: Request): readonly Change[] {
  const { model, run } = request;
  if (run.strategy?.layers?.some(({ segments }) => segments !== undefined) === true) return [];
  const sizes = Array.from({ length: model.numLayers }, (_, i) => i + 1).filter(
    (size) => size > (run.segmentLayers ?? 1) && model.numLayers % size === 0,
  );
  return sizes.map((segmentLayers) => ({
    name: () => `segmentLayers=${segmentLayers} with policy=auto`,
    input: withRun(request, { ...run, segmentLayers }),
  }));
}

/** Replicas alone help only where ZeRO shards over them. */
function moreRanks(request: Request): readonly Change[] {
  const counts = Array.from({ length: MAX_DOUBLINGS }, (_, i) => request.cluster.numRanks * 2 ** (i + 1));
  const runs = counts.map((numRanks) => ({ numRanks, run: onRanks(request.run, request.model, numRanks) }));
  const helpful = runs.filter(({ run }) => run.zeroStage > 0 || run.dataParallelSize <= request.run.dataParallelSize);
  return helpful.map(({ numRanks, run }) => {
    const cluster = { ...request.cluster, numRanks };
    const { sequenceParallelSize, dataParallelSize } = run;
    return {
      name: () => `${numRanks} GPUs (sequenceParallelSize=${sequenceParallelSize}, dataParallelSize=${dataParallelSize}, policy=auto)`,
      input: { ...request, cluster, run },
    };
  });
}

/** Twice the sequence parallel ranks while the heads allow, else twice the replicas. */
function onRanks(run: RunSpec, model: ModelSpec, numRanks: number): RunSpec {
  let size = run.sequenceParallelSize;
  while (numRanks % (2 * size) === 0 && sharesHeads(2 * size, model)) size *= 2;
  return {
    ...run,
    sequenceParallelSize: size,
    dataParallelSize: numRanks / size,
    paddedSeqLen: padSeqLen(run.seqLen, run.numChunks ?? 1, size),
  };
}

function shorter(request: Request): readonly Change[] {
  const lengths = Array.from({ length: MAX_HALVINGS }, (_, i) => Math.floor(request.run.seqLen / 2 ** (i + 1)));
  return lengths
    .filter((seqLen) => seqLen >= MIN_SEQ_LEN)
    .map((seqLen) => ({
      name: () => `seqLen=${seqLen} with policy=auto`,
      input: withRun(request, { ...request.run, seqLen, paddedSeqLen: padSeqLen(seqLen, 1, request.run.sequenceParallelSize) }),
    }));
}

function withRun(request: Request, run: RunSpec): Request {
  return { ...request, run };
}

function withoutChunks(run: RunSpec): RunSpec {
  const { numChunks: _, ...rest } = run;
  return { ...rest, paddedSeqLen: padSeqLen(run.seqLen, 1, run.sequenceParallelSize) };
}
