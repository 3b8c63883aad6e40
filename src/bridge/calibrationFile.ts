/** What a calibration leaves beside its cluster file: the shapes that it measured, so that they can be measured again. */
import { existsSync } from 'node:fs';
import * as z from 'zod';
import { parseCluster } from '../catalog/clusters.js';
import { count } from '../spec/count.js';
import { MODEL_DTYPES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { readHfConfig } from '../spec/hfConfig.js';
import { parseWith, readJsonObject } from '../spec/parseJson.js';
import type { ClusterSpec } from '../spec/types.js';
import type { CalibrationInput } from './calibrationProbes.js';

const KIND = 'calibrationShapes';

const object = z.record(z.string(), z.unknown());
const shapesSchema = z.strictObject({
  kind: z.literal(KIND),
  ranks: count,
  gpu: z.string().optional(),
  chunkTokens: count,
  dtype: z.enum(MODEL_DTYPES).optional(),
  diskFolder: z.string().optional(),
  model: object,
  deepspeed: object.optional(),
});

type Shapes = Omit<CalibrationInput, 'seconds'>;

export function shapesPath(cluster: string): string {
  return `${cluster.replace(/\.json$/, '')}.shapes.json`;
}

/** With what its paths hold, so that it can be read anywhere. */
export function shapesFile(input: CalibrationInput): object {
  const { deepspeed, ranks, gpu, chunkTokens, dtype, diskFolder } = input;
  return {
    kind: KIND,
    ...{ ranks, gpu, chunkTokens, dtype, diskFolder },
    model: readHfConfig(input.model).config,
    ...(deepspeed === undefined ? {} : { deepspeed: readJsonObject(deepspeed, 'deepspeed') }),
  };
}

/** A calibrated cluster and what it was measured on. Throws `not-calibrated` for any other. */
export function readShapes(path: string): { readonly cluster: ClusterSpec; readonly shapes: Shapes } {
  const cluster = parseCluster(path);
  const given = existsSync(shapesPath(path)) ? readJsonObject(shapesPath(path), 'calibration shapes') : {};
  if (given.kind === KIND && cluster.ratesProvenance === 'measured') {
    const { kind: _, ...shapes } = parseWith(shapesSchema, given, 'calibration shapes');
    return { cluster, shapes };
  }
  throw new FpdtError(`${path} was not written by a calibration`, {
    code: 'not-calibrated',
    hint: 'write one with `fpdt calibrate --model config.json --output cluster.json`',
  });
}

/** One line. */
export function calibrationText({ name, rates }: ClusterSpec): string {
  const giga = (value: number): string => (value / 1e9).toPrecision(3);
  const micro = (value: number): string => (value * 1e6).toPrecision(2);
  const disk = rates.diskReadBytes > 0 ? `, disk ${giga(rates.diskReadBytes)}/${giga(rates.diskWriteBytes)}` : '';
  return [
    `calibrated ${name}: matmul ${giga(rates.matmulFlops)}`,
    `attention ${giga(rates.attentionForwardFlops)}/${giga(rates.attentionBackwardFlops)} GFLOP/s`,
    `memory ${giga(rates.memoryBytes)}`,
    `copies ${giga(rates.h2dBytes)}/${giga(rates.d2hBytes)}${disk}`,
    `exchange ${giga(rates.commBytes)} GB/s`,
    `op ${micro(rates.hostSecondsPerOp)} us`,
    `kernel ${micro(rates.hostSecondsPerKernel)} us`,
    `${rates.kernelRates.length} kernels by shape`,
  ].join(', ');
}
