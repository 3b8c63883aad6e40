/** Measures this machine: plans small runs, has Python run them on all ranks at once, and makes a cluster of what they took. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import * as z from 'zod';
import { parseCluster } from '../catalog/clusters.js';
import { ATTENTION_KERNELS } from '../catalog/kernels.js';
import { viewBytes } from '../catalog/ops/index.js';
import { numWeightElements } from '../catalog/parameters.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { writePlanFile } from '../plan/file.js';
import { measuredRates } from '../predict/measured/rates.js';
import { predictRun } from '../predict/predict.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { parseWith } from '../spec/parseJson.js';
import { FILE_ALIGNMENT_BYTES } from '../spec/pools.js';
import type { ClusterSpec } from '../spec/types.js';
import { type ProbeInput, probePlans } from '../strategy/probePlans.js';
import { type CalibrationInput, calibrationProbes } from './calibrationProbes.js';
import { SETUP_HINT } from './python.js';
import { prepareEnvironment } from './rankEnvironment.js';

/** Of the memory, and of the room on a disk, that is free now: the pools of all ranks share it. */
const FREE_SHARE = 0.8;
const CPU = 'cpu';

/** What Python is given (fpdt/calibrate.py, Job); its plans are files. */
export interface CalibrationJob {
  readonly plans: readonly string[];
  readonly sizes: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly disk_folder: string | null;
}

/** Numbers by name, as Python prints them. */
export type MeasuredNumbers = Readonly<Record<string, number>>;

/**
 * A cluster whose rates are measured. Throws `calibration-failed`, of which Python has said on stderr what was wrong, and `does-not-fit` where
 * the runs that are timed need more memory than is free.
 */
export async function calibrateMachine(python: string, input: CalibrationInput): Promise<ClusterSpec> {
  const folder = mkdtempSync(join(tmpdir(), 'fpdt-calibrate-'));
  try {
    const { base, job, plans } = await calibrationJob(input, folder);
    const path = join(folder, 'job.json');
    writeFileSync(path, JSON.stringify(job));
    return measuredCluster(input, base, plans, readNumbers(JSON.parse(runPython(python, path))), processorName());
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What to measure, with its plans written into `folder`; `base` is the cluster that they are for. */
export async function calibrationJob(
  input: CalibrationInput,
  folder: string,
): Promise<{ readonly base: ClusterSpec; readonly job: CalibrationJob; readonly plans: readonly ExecutionPlan[] }> {
  const base = freeCluster(input);
  const plans = await calibrationProbes(input, freeCluster);
  const paths = plans.map((_, number) => join(folder, `plan-${number}.json`));
  await Promise.all(plans.map((plan, number) => writePlanFile(plan, paths[number] ?? '')));
  return { base, plans, job: { plans: paths, sizes: sizesOf(plans), seconds: input.seconds, disk_folder: input.diskFolder ?? null } };
}

/** The cluster of what was measured; `machine` names it. */
export function measuredCluster(
  input: CalibrationInput,
  base: ClusterSpec,
  plans: readonly ExecutionPlan[],
  numbers: MeasuredNumbers,
  machine: string,
): ClusterSpec {
  const apart = Object.fromEntries(Object.entries(numbers).filter(([name]) => name in base.rates));
  const probes = plans.map((plan, number) => ({ plan, numbers: numbersOf(numbers, `plan/${number}/`) }));
  const { rates, origins } = measuredRates({ probes, apart }, base.rates);
  return {
    ...base,
    ...installedKernels(numbers),
    rates,
    ratesProvenance: 'measured',
    rateOrigins: origins,
    ratesSource: `fpdt calibrate, ${input.ranks} busy ranks on ${machine}, ${shapesText(input, plans)}`,
    peakFlops: base.device === 'cpu' ? (numbers['peakFlops'] ?? base.peakFlops) : base.peakFlops,
  };
}

/** Kernels whose packages every rank found: numbers are means of the ranks. */
export function installedKernels(numbers: MeasuredNumbers): Pick<ClusterSpec, 'installedKernels'> {
  const names = ATTENTION_KERNELS.map(({ name }) => name).filter((name) => numbers[`installed/${name}`] === 1);
  return names.length === 0 ? {} : { installedKernels: names };
}

/** How much faster (above 1) or slower this machine is with the rates of one cluster than of another, on the plans that measured it. */
export async function speedFactor(input: Omit<ProbeInput, 'cluster'>, before: ClusterSpec, now: ClusterSpec): Promise<number> {
  const plans = await probePlans({ ...input, cluster: before });
  const seconds = (cluster: ClusterSpec): number => plans.reduce((sum, plan) => sum + predictRun({ ...plan, cluster }).stepSeconds, 0);
  return seconds(before) / seconds(now);
}

/** The catalog's, with the memory and the disk of this machine that are free now. */
function freeCluster({ ranks, gpu = CPU, diskFolder }: CalibrationInput): ClusterSpec {
  const cluster = parseCluster({ gpus: ranks, gpu });
  const diskBytes = diskFolder === undefined ? 0 : align((FREE_SHARE * freeDiskBytes(diskFolder)) / ranks);
  // A disk without rates is none; these stand for it until it is measured.
  if (cluster.device !== 'cpu') return { ...cluster, diskBytes };
  const share = Math.floor((FREE_SHARE * process.availableMemory()) / (2 * ranks));
  return { ...cluster, ranksPerNode: ranks, hbmBytes: share, hostBytes: share, diskBytes };
}

function freeDiskBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch (cause) {
    throw new FpdtError(`cannot use ${folder} as a disk: ${(cause as Error).message}`, {
      code: 'file-not-readable',
      hint: 'give a folder that is there with --disk-folder',
      cause,
    });
  }
}

function align(bytes: number): number {
  return Math.floor(bytes / FILE_ALIGNMENT_BYTES) * FILE_ALIGNMENT_BYTES;
}

const measuredSchema = z.record(z.string(), z.number());

/** Throws FpdtError for what is not numbers by name. */
export function readNumbers(value: unknown): MeasuredNumbers {
  return parseWith(measuredSchema, value, 'calibration');
}

/** Bytes of what is measured apart from plans: the largest copy and exchange of theirs, and a layer's weights. */
function sizesOf(plans: readonly ExecutionPlan[]): Readonly<Record<string, number>> {
  const largest = (kinds: readonly string[], side: 'reads' | 'writes'): number =>
    Math.max(
      0,
      ...plans.flatMap(({ sections, buffers }) =>
        sections.flatMap(({ ops }) =>
          ops.filter(({ kind }) => kinds.includes(kind)).map((op) => viewBytes(op[side], buffers) / op[side].length),
        ),
      ),
    );
  const [first] = plans;
  const weights = Math.max(0, ...(first?.parameters.layers.map((layer) => numWeightElements(layer.weights)) ?? []));
  const copy = Math.max(1024, Math.floor(largest(['copy'], 'reads') / 1024) * 1024);
  return {
    copy_bytes: copy,
    exchange_bytes: Math.ceil(largest(['toHeads'], 'writes')),
    layer_bytes: weights * DTYPE_BYTES[first?.run.dtype ?? 'float32'],
    block_bytes: copy,
  };
}

function runPython(python: string, job: string): string {
  const env = { ...prepareEnvironment(process.env), OMP_NUM_THREADS: '1' };
  const done = spawnSync(python, ['-m', 'fpdt.calibrate', job], { env, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  if (done.status === 0) return done.stdout;
  throw new FpdtError(`the calibration failed: ${done.error?.message ?? `exit code ${done.status}`}`, {
    code: 'calibration-failed',
    hint: SETUP_HINT,
  });
}

function numbersOf(numbers: MeasuredNumbers, prefix: string): MeasuredNumbers {
  return Object.fromEntries(
    Object.entries(numbers)
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, value]) => [name.slice(prefix.length), value]),
  );
}

function processorName(): string {
  return cpus()[0]?.model ?? 'an unknown CPU';
}

function shapesText({ chunkTokens }: CalibrationInput, [plan]: readonly ExecutionPlan[]): string {
  return `hidden ${plan?.model.hiddenSize}, chunks of ${chunkTokens} tokens, ${plan?.run.dtype}`;
}
