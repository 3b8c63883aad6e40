/** How a rank runs its plan, as the controller tells it. Twin of python/fpdt/wire/options.py. */
import * as z from 'zod';
import { NON_FINITE_POLICIES, SAVE_POLICIES } from '../spec/runPolicies.js';
import { dataOptionsSchema } from './dataOptions.js';

const count = z.int().nonnegative();
const positive = z.int().positive();

/** Where and when a run saves its state. */
const checkpointOptionsSchema = z.strictObject({
  folder: z.string(),
  /** Steps between two checkpoints; null: only when the run ends or is stopped. */
  every: positive.nullable(),
  /** As many of the newest stay. */
  keep: positive,
  /** What becomes of the run when one cannot be written. */
  onSaveFailure: z.enum(SAVE_POLICIES),
});

/** What a run goes on from: with `newest` the newest sound checkpoint of its folder; else, or where there is none, `path`. */
const resumeOptionsSchema = z.strictObject({ newest: z.boolean(), path: z.string().nullable() });

/** Held-out data, and when its loss is asked for. */
const evaluationOptionsSchema = z.strictObject({
  /** As the `data` of a run. */
  data: z.string(),
  /** Of its sequences; null: all that fill rounds of the replicas. */
  sequences: positive.nullable(),
  /** Optimizer steps between two evaluations; null: at the end alone. */
  every: positive.nullable(),
});

/** How a rank runs its plan. Absent choices are null, so that a missing key is an error. */
export const runOptionsSchema = z.strictObject({
  /** What to read tokens from, as the worker's `--data`. */
  data: z.string(),
  dataOptions: dataOptionsSchema.nullable(),
  /** Hugging Face folder with the weights to start from; null: those of the plan's seed. */
  weights: z.string().nullable(),
  /** Folder that `exportModel` writes the model into, checked before the first step. */
  export: z.string().nullable(),
  /** Folder for the gradients of every parameter after each step. */
  dumpGrads: z.string().nullable(),
  /** Who launches copies, and when; the modes of a device: DEVICE_MODES of python/fpdt/devices. Null: its first. */
  copyMode: z.enum(['eager', 'lazy', 'random', 'threads', 'events', 'native']).nullable(),
  /** Fill arenas and freed buffers with NaN. */
  poison: z.boolean(),
  seed: count.nullable(),
  /** Folder for the files of file pools; null where the plan has none. */
  diskFolder: z.string().nullable(),
  diskDirect: z.boolean().nullable(),
  /** Telemetry has the single ops of one decoder layer in so many; 0: of none. */
  recordLayers: count,
  /** Optimizer steps to write a Chrome trace of. */
  traceSteps: z.array(count),
  /** Folder for these traces. */
  traceFolder: z.string().nullable(),
  checkpoint: checkpointOptionsSchema.nullable(),
  /** Null: from the start. */
  resume: resumeOptionsSchema.nullable(),
  /** What a NaN or an infinity in the loss or a gradient does; null: nobody looks before DeepSpeed does. */
  onNonFinite: z.enum(NON_FINITE_POLICIES).nullable(),
  evaluation: evaluationOptionsSchema.nullable(),
});
export type RunOptions = z.infer<typeof runOptionsSchema>;
