/** The resolved run: every default filled in, checked against model, cluster and ds_config. */
import type { ParsedDeepSpeed } from './deepspeedConfig.js';
import { FpdtError } from './errors.js';
import { parseKernels } from './kernelChoices.js';
import { headGroupCounts, ownKvHeads, parallelLayout, type ParallelLayout } from './parallelLayout.js';
import { resolveParallelism } from './parallelism.js';
import type { NamedPool } from './pools.js';
import { isPlanOnly, planOnlyError } from './releasedPrograms.js';
import { parseRunInput, type RunInput } from './runInput.js';
import { parseTokens, withChunks } from './sizes.js';
import type { ForcedPlaces } from './strategy.js';
import { resolveForced } from './strategyInput.js';
import type { ClusterSpec, ModelSpec, PolicyName, RunSpec } from './types.js';

export { type RunInput, parseRunInput } from './runInput.js';

/** Slots of a double buffer: the next fetch runs while a chunk is used. */
const DEFAULT_PREFETCH_DEPTH = 2;
/** Of a GPU's memory: what formulas and catalog do not know. Memory of a CPU is the share of it that its cluster file gives. */
export const DEFAULT_RESERVE = { cuda: 0.04, cpu: 0 } as const;

/** `pools` are those of the cluster, for the places that a strategy names. */
export function parseRun(
  input: unknown,
  model: ModelSpec,
  cluster: ClusterSpec,
  deepspeed: ParsedDeepSpeed,
  pools: readonly NamedPool[],
): RunSpec {
  const run = parseRunInput(input);
  const parallelism = resolveParallelism(run, model, cluster, deepspeed.sequenceParallelSize);
  const seqLen = parseTokens(run.seqLen, 'run.seqLen');
  const { sequenceParallelSize } = parallelism;
  const { knobs, places } = resolveForced(run, model, pools);
  const kernels = run.kernels === undefined ? undefined : parseKernels(run.kernels);
  checkChunks(knobs.numChunks, seqLen, sequenceParallelSize);
  checkSegments(run.segmentLayers, model);
  checkHeadGroups(knobs.headGroups, places, parallelLayout(model, parallelism, cluster.ranksPerNode));
  return {
    kind: 'run',
    ...withChunks({ seqLen, ...parallelism, rowTile: rowTile(model, cluster) }, knobs.numChunks ?? 1),
    policy: runnable(run),
    ...(run.segmentLayers === undefined ? {} : { segmentLayers: run.segmentLayers }),
    prefetchDepth: DEFAULT_PREFETCH_DEPTH,
    hbmReserve: parseReserve(run.hbmReserve, cluster),
    ...knobs,
    ...(places === undefined ? {} : { strategy: places }),
    ...(run.attention === undefined ? {} : { attention: run.attention }),
    ...(kernels === undefined ? {} : { kernels }),
    dtype: deepspeed.dtype,
    zeroStage: deepspeed.zeroStage,
    gradientAccumulationSteps: deepspeed.gradientAccumulationSteps,
    lossScale: run.lossScale ?? 1,
    numSteps: run.numSteps ?? 1,
    seed: run.seed ?? 0,
    ...(run.packing === true ? { packing: true } : {}),
    ...(run.evaluate === true ? { evaluate: true } : {}),
  };
}

/** Groups of equal size, each with whole key/value heads; an outer loop over keys has no use for them. */
function checkHeadGroups(headGroups = 1, places: ForcedPlaces | undefined, layout: ParallelLayout): void {
  if (headGroups === 1) return;
  const counts = headGroupCounts(layout);
  if (!counts.includes(headGroups)) {
    throw new FpdtError(`headGroups ${headGroups} does not divide the ${ownKvHeads(layout)} key/value heads that a rank attends with`, {
      code: 'bad-head-groups',
      hint: `headGroups can be ${counts.join(', ')}`,
    });
  }
  const isOuter = places?.layers?.some(({ backwardOrder }) => backwardOrder === 'keyValueOuterAscending') ?? false;
  if (!isOuter) return;
  throw new FpdtError(`headGroups ${headGroups}: the order keyValueOuterAscending goes through keys for all heads at once`, {
    code: 'bad-order',
    hint: 'use queryOuterDescending, or headGroups=1',
  });
}

/**
 * Matrix products and attention work in tiles of 128 rows on a GPU, and a backward of cuDNN's may be NaN where the last one is half full
 * (pytorch issue 196678). A table of positions ends where it ends: padding must not look past it.
 */
function rowTile({ code }: ModelSpec, { device }: ClusterSpec): number {
  const hasTable = code.embed.instructions.some(({ op, reads }) => op === 'lookup' && reads.includes('@positions'));
  return device === 'cuda' && !hasTable ? GPU_ROW_TILE : 1;
}

const GPU_ROW_TILE = 128;

function runnable({ policy = 'auto', released }: RunInput): PolicyName {
  if (isPlanOnly(policy)) throw planOnlyError(policy);
  if (released === undefined) return policy;
  throw new FpdtError(`run.released is given, but ${policy} is no released program`, { code: 'conflict', hint: 'leave run.released out' });
}

/** A share from a number or from text such as `4%`. */
function parseReserve(value: number | string | undefined, { device }: ClusterSpec): number {
  if (value === undefined) return DEFAULT_RESERVE[device];
  const percent = /^\s*(\d+(?:\.\d+)?)\s*%\s*$/.exec(String(value));
  const share = percent === null ? Number(value) : Number(percent[1]) / 100;
  if (share >= 0 && share < 1 && String(value).trim() !== '') return share;
  throw new FpdtError(`run.hbmReserve: expected a share of the memory from 0 up to 1, found ${JSON.stringify(value)}`, {
    code: 'invalid-value',
    hint: "write a share such as 0.04, or text such as '4%'",
  });
}

function checkChunks(numChunks: number | undefined, seqLen: number, sequenceParallelSize: number): void {
  const most = Math.ceil(seqLen / sequenceParallelSize);
  if (numChunks === undefined || numChunks <= most) return;
  throw new FpdtError(`numChunks ${numChunks} is more than the ${most} tokens each rank holds`, {
    code: 'too-many-chunks',
    hint: `numChunks can be at most ${most} for ${seqLen} tokens on ${sequenceParallelSize} ranks`,
  });
}

function checkSegments(segmentLayers: number | undefined, { numLayers }: ModelSpec): void {
  if (segmentLayers === undefined || segmentLayers <= numLayers) return;
  throw new FpdtError(`run.segmentLayers ${segmentLayers} is more than the model's ${numLayers} layers`, {
    code: 'bad-segment',
    hint: `segmentLayers=${numLayers} keeps one checkpoint for the whole model`,
  });
}
