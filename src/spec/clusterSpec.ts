/** The cluster as a user gives it: a catalog name with counts, a calibrated file, or a full ClusterSpec. */
import * as z from 'zod';
import { count } from './count.js';
import { FpdtError } from './errors.js';
import { type JsonObject, parseWith, readJsonObject } from './parseJson.js';
import { parseBytes } from './sizes.js';
import type { ClusterSpec } from './types.js';

const positive = z.number().positive();
/** A plan names each of them. */
const ranks = count.max(2 ** 20);
const provenance = z.enum(['exact', 'derived', 'measured', 'assumed']);

const kernelNames = z.array(z.string());

const shortSchema = z.strictObject({
  gpus: ranks,
  gpu: z.string(),
  installedKernels: kernelNames.optional(),
  float16: z.boolean().optional(),
  ranksPerNode: count.optional(),
  hbmBytes: z.union([z.number(), z.string()]).optional(),
  hostBytes: z.union([z.number(), z.string()]).optional(),
  diskBytes: z.union([z.number(), z.string()]).optional(),
});

/** `gpus` of one catalog entry. Memory is per rank, a number of bytes or text such as `64G`. */
export interface ShortClusterInput {
  readonly gpus: number;
  readonly gpu: string;
  /** See ClusterSpec. */
  readonly installedKernels?: readonly string[] | undefined;
  readonly float16?: boolean | undefined;
  readonly ranksPerNode?: number | undefined;
  readonly hbmBytes?: number | undefined;
  readonly hostBytes?: number | undefined;
  /** Bytes of a rank's file on a local disk; none where left out. */
  readonly diskBytes?: number | undefined;
}

const seconds = z.number().min(0).default(0);
const attentionRate = z.strictObject({
  kernel: z.string(),
  headDim: count,
  forwardFlops: positive,
  backwardFlops: positive,
  measured: z.strictObject({ forwardMaskKeys: z.number().min(0), backwardMaskKeys: z.number().min(0) }).optional(),
});
const kernelRate = z.strictObject({ kernel: z.string(), rows: count, workPerRow: positive, workPerSecond: positive });

const ratesSchema = z.strictObject({
  matmulFlops: positive,
  attentionForwardFlops: positive,
  attentionBackwardFlops: positive,
  memoryBytes: positive,
  h2dBytes: positive,
  d2hBytes: positive,
  duplexBytes: z.number().min(0),
  commBytes: positive,
  commLatencySeconds: z.number().min(0),
  launchSeconds: z.number().min(0),
  optimizerSecondsPerParameter: z.number().min(0),
  stepOverheadSeconds: z.number().min(0),
  // Absent from files of earlier versions: a host that issues at no cost, no disk, and attention as it is above at every length.
  attentionKernels: z.array(attentionRate).default([]),
  attentionHalfKeys: z.number().min(0).default(0),
  hostSecondsPerOp: z.number().min(0).default(0),
  hostSecondsPerKernel: z.number().min(0).default(0),
  diskReadBytes: z.number().min(0).default(0),
  diskWriteBytes: z.number().min(0).default(0),
  kernelRates: z.array(kernelRate).default([]),
  turnWaitSeconds: seconds,
  rankWaitSeconds: seconds,
  rankSkew: seconds,
  optimizerStepSeconds: seconds,
  zeroGatherSeconds: seconds,
  zeroReleaseSeconds: seconds,
  zeroReduceSeconds: seconds,
  turnOverheadSeconds: seconds,
  gatherBytes: positive,
  reduceBytes: positive,
  interNodeBytes: positive,
  interNodeLatencySeconds: z.number().min(0),
  offloadedOptimizerSecondsPerParameter: z.number().min(0),
});

export const RATE_ORIGINS = ['measured', 'published', 'assumed'] as const;
/** Names of all rates. */
export const RATE_NAMES = ratesSchema.keyof();

/** As a plan has it. */
export const clusterSchema = z.strictObject({
  kind: z.literal('cluster'),
  name: z.string(),
  device: z.enum(['cpu', 'cuda']),
  architecture: z.string().optional(),
  installedKernels: kernelNames.optional(),
  float16: z.boolean().optional(),
  numRanks: ranks,
  ranksPerNode: count,
  hbmBytes: positive,
  hostBytes: positive,
  diskBytes: z.number().min(0).default(0),
  overheads: z.array(z.strictObject({ name: z.string(), bytes: z.number().min(0), provenance, source: z.string() })),
  rates: ratesSchema,
  ratesProvenance: provenance,
  rateOrigins: z.partialRecord(RATE_NAMES, z.enum(RATE_ORIGINS)).optional(),
  ratesSource: z.string(),
  peakFlops: positive,
});

/** As files have it: those of earlier versions lack some rates, which `complete` fills in. */
const fileSchema = clusterSchema.extend({
  rates: ratesSchema.partial({
    gatherBytes: true,
    reduceBytes: true,
    interNodeBytes: true,
    interNodeLatencySeconds: true,
    offloadedOptimizerSecondsPerParameter: true,
  }),
});

/** A path, a short input or a full spec; which one it is, its fields say. */
export function readClusterInput(input: string | JsonObject): ClusterSpec | ShortClusterInput {
  const value = readJsonObject(input, 'cluster');
  if ('kind' in value) return checkDisk(complete(parseWith(fileSchema, value, 'cluster')));
  const { hbmBytes, hostBytes, diskBytes, ...rest } = parseWith(shortSchema, value, 'cluster');
  return {
    ...rest,
    ...(hbmBytes === undefined ? {} : { hbmBytes: parseBytes(hbmBytes, 'cluster.hbmBytes') }),
    ...(hostBytes === undefined ? {} : { hostBytes: parseBytes(hostBytes, 'cluster.hostBytes') }),
    ...(diskBytes === undefined ? {} : { diskBytes: parseBytes(diskBytes, 'cluster.diskBytes') }),
  };
}

/** Files of earlier versions have one kind of link, and one price of the optimizer wherever it runs. */
function complete({ rates, ...spec }: z.infer<typeof fileSchema>): ClusterSpec {
  return {
    ...spec,
    rates: {
      ...rates,
      gatherBytes: rates.gatherBytes ?? rates.commBytes,
      reduceBytes: rates.reduceBytes ?? rates.commBytes,
      interNodeBytes: rates.interNodeBytes ?? rates.commBytes,
      interNodeLatencySeconds: rates.interNodeLatencySeconds ?? rates.commLatencySeconds,
      offloadedOptimizerSecondsPerParameter: rates.offloadedOptimizerSecondsPerParameter ?? rates.optimizerSecondsPerParameter,
    },
  };
}

/** A disk without rates would take for ever. */
function checkDisk(cluster: ClusterSpec): ClusterSpec {
  const { diskReadBytes, diskWriteBytes } = cluster.rates;
  if (cluster.diskBytes === 0 || (diskReadBytes > 0 && diskWriteBytes > 0)) return cluster;
  throw new FpdtError(`cluster.diskBytes is ${cluster.diskBytes}, but cluster.rates has no diskReadBytes and diskWriteBytes`, {
    code: 'missing-key',
    hint: 'give both in bytes a second, or leave diskBytes out',
  });
}
