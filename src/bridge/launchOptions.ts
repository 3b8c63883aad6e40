/** What a caller of `launchRun` may choose. */

import type { CheckpointChoices } from './checkpointOptions.js';
import type { DataChoices } from './dataOptions.js';
import type { HostsOptions } from './hosts/hostsOptions.js';
import type { FolderOptions } from './runFolder/folderOptions.js';
import type { RunOptions } from './runOptions.js';
import type { WatchLimits } from './watchdog.js';

export interface LaunchOptions extends DataChoices, CheckpointChoices, FolderOptions, HostsOptions {
  /** What to read tokens from: a file or folder that docs/data.md knows. */
  readonly data: string;
  /** Hugging Face folder (config.json and safetensors) with the weights to start from; left out: those of the plan's seed. */
  readonly weights?: string | undefined;
  /** Folder, new or empty, that the trained model is written into as Hugging Face has it. */
  readonly export?: string | undefined;
  /** Folder for the gradients of every parameter after each step. */
  readonly dumpGrads?: string | undefined;
  /** When the CPU device runs asynchronous copies and exchanges; default eager. */
  readonly copyMode?: NonNullable<RunOptions['copyMode']> | undefined;
  /** Fill arenas and freed buffers with NaN, to find reads of what is no longer there. */
  readonly poison?: boolean | undefined;
  /** Of the order of `copyMode` random, and of when threads sleep. */
  readonly seed?: number | undefined;
  /** Folder for the files of file pools, on the disk the plan was made for; a plan without one needs none. */
  readonly diskFolder?: string | undefined;
  /** Files past the page cache, or never; left out: where the file system can. */
  readonly diskDirect?: boolean | undefined;
  /** Telemetry has the single ops of one decoder layer in so many; default 0: of none. */
  readonly recordLayers?: number | undefined;
  /** Optimizer steps to write a Chrome trace of; they take longer. */
  readonly traceSteps?: readonly number[] | undefined;
  /** Folder for these traces. */
  readonly traceFolder?: string | undefined;
  /** Held-out tokens, read as `data` is, for a plan that was made with `evaluate`. */
  readonly evalData?: string | undefined;
  /** Sequences of it that are evaluated, in whole rounds of the replicas; left out: all, each once. */
  readonly evalSequences?: number | undefined;
  /** Optimizer steps between two evaluations; left out: at the end alone. */
  readonly evalEvery?: number | undefined;
  /** Interpreter; default FPDT_PYTHON, else the environment that setup made. */
  readonly python?: string | undefined;
  /** Instead of the plan's number of steps. */
  readonly steps?: number | undefined;
  /** Python module of the worker. */
  readonly worker?: string | undefined;
  /** First ask transformers for the shapes of the model's parameters and compare them with the plan's. */
  readonly checkShapes?: boolean | undefined;
  /** Hears how far the data is prepared, before the ranks start. */
  readonly onPreparation?: ((line: string) => void) | undefined;
  /** What a NaN or an infinity in the loss or a gradient does, found before the update; left out: what DeepSpeed does at this ZeRO stage. */
  readonly onNonFinite?: NonNullable<RunOptions['onNonFinite']> | undefined;
  /** Aborts the run. */
  readonly signal?: AbortSignal | undefined;
  /** Ends the run after the step that runs, see Run.stop. */
  readonly stopSignal?: AbortSignal | undefined;
  /** Environment of the ranks in place of this process's own. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** When a rank counts as hung. */
  readonly limits?: Partial<WatchLimits> | undefined;
}
