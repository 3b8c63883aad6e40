/** What becomes of a mutated config: a plan, or an error of the input with a hint; anything else is a defect. */
import { parseModel } from '../../src/catalog/index.js';
import { FpdtError } from '../../src/spec/errors.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { planRun } from '../../src/strategy/planRun.js';
import type { Mutation } from './mutations.js';

export type Outcome = 'planned' | 'refused' | 'defect';

export interface Verdict {
  readonly outcome: Outcome;
  /** The message of a refusal, or what is wrong. */
  readonly message?: string;
}

const DEEPSPEED = { bf16: { enabled: 'auto' }, zero_optimization: { stage: 3 }, train_micro_batch_size_per_gpu: 1 };

/** Through the whole planner, on a machine that holds anything. */
export async function judge({ config, without, at }: Mutation, original: string | undefined): Promise<Verdict> {
  try {
    const cluster = { gpus: 2, gpu: 'cpu', hbmBytes: '64T', hostBytes: '64T' };
    await planRun({ model: config, cluster, run: { seqLen: 256, numChunks: 2 }, deepspeed: DEEPSPEED });
    // Not the plan's, which has no windows that a sequence does not fill.
    const isSilent = without !== undefined && original !== undefined && modelOf(config) !== original;
    if (!isSilent) return { outcome: 'planned' };
    return { outcome: 'defect', message: `misspelt, ${at} changes the model in silence` };
  } catch (error) {
    if (!(error instanceof FpdtError))
      return { outcome: 'defect', message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    if (error.hint === undefined) return { outcome: 'defect', message: `no hint: ${error.message}` };
    return { outcome: 'refused', message: error.message };
  }
}

/** The model of a config, without the config; undefined where it is refused. */
export function modelOf(config: JsonObject): string | undefined {
  try {
    return JSON.stringify({ ...parseModel(config), hfConfig: {} });
  } catch (error) {
    if (error instanceof FpdtError) return undefined;
    throw error;
  }
}
