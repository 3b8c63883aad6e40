/** Changes to a request that does not fit, by kind. */
import { unsupportedProblems } from '../spec/deepspeedRefuse.js';
import { sharesHeads } from '../spec/parallelism.js';
import type { JsonObject } from '../spec/parseJson.js';
import { DEFAULT_RESERVE } from '../spec/runSpec.js';
import { formatBytes, withChunks } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import type { ModelSpec, RunSpec } from '../spec/types.js';
import { POLICIES } from './policies/index.js';
import type { BuildInput as Request } from './setting.js';

export interface Change {
  readonly name: (strategy: Strategy) => string;
  readonly input: Request;
}

/** What a change asks for: other settings of the same run, other machines for it, or another run. */
export type Asks = 'settings' | 'machines' | 'run';

/** Changes of one kind, the smallest first. The first under which something fits stands for them. */
export interface Remedy {
  readonly asks: Asks;
  readonly changes: readonly Change[];
}

const MAX_DOUBLINGS = 6;
const MAX_HOST_DOUBLINGS = 4;
const MAX_HALVINGS = 12;
const MIN_SEQ_LEN = 1024;
const ZERO_STAGES = [1, 2, 3] as const;

export function remedies(request: Request): readonly Remedy[] {
  const { run } = request;
  const open = withRun(request, { ...withoutChunks(run), policy: 'auto' });
  const settings = (changes: readonly Change[]): Remedy => ({ asks: 'settings', changes });
  return [
    settings(run.numChunks === undefined || POLICIES[run.policy].chunkCounts(run).length === 1 ? [] : [moreChunks(request)]),
    settings(run.policy === 'auto' ? [] : [{ name: ({ numChunks }) => `policy=auto (numChunks=${numChunks})`, input: open }]),
    settings(smallerReserve(open)),
    settings(higherStages(open)),
    settings(offloaded(open)),
    settings(longerSegments(open)),
    { asks: 'machines', changes: moreHost(open) },
    { asks: 'machines', changes: moreRanks(open) },
    { asks: 'run', changes: shorter(open) },
  ];
}

function moreChunks(request: Request): Change {
  return { name: ({ numChunks }) => `numChunks=${numChunks}`, input: withRun(request, withoutChunks(request.run)) };
}

/** Where more is kept free than is by itself. */
function smallerReserve(request: Request): readonly Change[] {
  const hbmReserve = DEFAULT_RESERVE[request.cluster.device];
  if (request.run.hbmReserve <= hbmReserve) return [];
  return [{ name: () => `hbmReserve=${hbmReserve} with policy=auto`, input: withRun(request, { ...request.run, hbmReserve }) }];
}

/** ZeRO shards more of the model states with each stage; it has something to shard where there are several ranks. */
function higherStages(request: Request): readonly Change[] {
  if (request.cluster.numRanks === 1) return [];
  const stages = ZERO_STAGES.filter((stage) => stage > request.run.zeroStage);
  return stages.flatMap((stage) => withZero(request, { stage }, `ZeRO stage ${stage} with policy=auto`));
}

/** Optimizer states on the host, alone or with a higher stage; where host and device are one memory it frees nothing. */
function offloaded(request: Request): readonly Change[] {
  const { device } = request.cluster;
  const zero = request.deepspeed.zero_optimization as JsonObject | undefined;
  if (device === 'cpu' || (zero?.offload_optimizer as JsonObject | undefined)?.device === 'cpu') return [];
  const offload = { offload_optimizer: { device: 'cpu', pin_memory: true } };
  const stages = ZERO_STAGES.filter((stage) => stage >= request.run.zeroStage);
  return stages.flatMap((stage) => {
    const atStage = stage === request.run.zeroStage ? '' : `ZeRO stage ${stage} and `;
    return withZero(request, { ...offload, stage }, `${atStage}offload_optimizer to the cpu with policy=auto`);
  });
}

/** None where DeepSpeed's other settings do not go with it. */
function withZero(request: Request, change: JsonObject & { readonly stage: RunSpec['zeroStage'] }, name: string): readonly Change[] {
  const deepspeed = { ...request.deepspeed, zero_optimization: { ...(request.deepspeed.zero_optimization as JsonObject), ...change } };
  const { device, numRanks } = request.cluster;
  if (unsupportedProblems(deepspeed, { stage: change.stage, dtype: request.run.dtype, device, numRanks }).length > 0) return [];
  return [{ name: () => name, input: { ...request, deepspeed, run: { ...request.run, zeroStage: change.stage } } }];
}

/** One checkpoint for k layers: less memory, one more forward of k - 1 of them. Where nothing of it is fixed, `auto` has tried. */
function longerSegments(request: Request): readonly Change[] {
  const { model, run } = request;
  const isSolvers = run.segmentLayers === undefined && run.strategy?.layers === undefined;
  if (isSolvers || run.strategy?.layers?.some(({ segments }) => segments !== undefined) === true) return [];
  const sizes = Array.from({ length: model.numLayers }, (_, i) => i + 1).filter(
    (size) => size > (run.segmentLayers ?? 1) && model.numLayers % size === 0,
  );
  return sizes.map((segmentLayers) => ({
    name: () => `segmentLayers=${segmentLayers} with policy=auto`,
    input: withRun(request, { ...run, segmentLayers }),
  }));
}

function moreHost(request: Request): readonly Change[] {
  const { cluster } = request;
  if (cluster.hostBytes === 0) return [];
  const sizes = Array.from({ length: MAX_HOST_DOUBLINGS }, (_, i) => cluster.hostBytes * 2 ** (i + 1));
  return sizes.map((hostBytes) => ({
    name: () => `hostBytes=${formatBytes(hostBytes)} a rank with policy=auto`,
    input: { ...request, cluster: { ...cluster, hostBytes } },
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
  return withChunks({ ...run, sequenceParallelSize: size, dataParallelSize: numRanks / size }, run.numChunks ?? 1);
}

function shorter(request: Request): readonly Change[] {
  const lengths = Array.from({ length: MAX_HALVINGS }, (_, i) => Math.floor(request.run.seqLen / 2 ** (i + 1)));
  return lengths
    .filter((seqLen) => seqLen >= MIN_SEQ_LEN)
    .map((seqLen) => ({
      name: () => `seqLen=${seqLen} with policy=auto`,
      input: withRun(request, withChunks({ ...request.run, seqLen }, 1)),
    }));
}

function withRun(request: Request, run: RunSpec): Request {
  return { ...request, run };
}

function withoutChunks(run: RunSpec): RunSpec {
  const { numChunks: _, ...rest } = run;
  return withChunks(rest, 1);
}
