/** `fpdt plan`: options to specs, specs to a plan, its summary to the terminal and the plan to a file. */
import { writePlanFile } from '../plan/file.js';
import { planSummary } from '../plan/summary.js';
import { planToJson } from '../report/planJson.js';
import { FpdtError } from '../spec/errors.js';
import { type PlanInput, planRun } from '../strategy/planRun.js';
import { modelFolder } from './modelPath.js';
import { type Output, printJson } from './output.js';

type Options = Readonly<Record<string, unknown>>;

/** `[option, field of run]`. */
const RUN_FIELDS = [
  ['seqLen', 'seqLen'],
  ['policy', 'policy'],
  ['sequenceParallel', 'sequenceParallelSize'],
  ['dataParallel', 'dataParallelSize'],
  ['chunks', 'numChunks'],
  ['segmentLayers', 'segmentLayers'],
  ['kvTile', 'kvTileChunks'],
  ['lossTiles', 'numLossTiles'],
  ['tokenTiles', 'numTokenTiles'],
  ['prefetchDepth', 'prefetchDepth'],
  ['hbmReserve', 'hbmReserve'],
  ['strategy', 'strategy'],
  ['attention', 'attention'],
  ['dtype', 'dtype'],
  ['ropeTheta', 'ropeTheta'],
  ['ropeScaling', 'ropeScaling'],
  ['freeze', 'freeze'],
  ['lora', 'lora'],
  ['steps', 'numSteps'],
  ['seed', 'seed'],
] as const;

const CLUSTER_FIELDS = [
  ['gpus', 'gpus'],
  ['gpu', 'gpu'],
  ['ranksPerNode', 'ranksPerNode'],
  ['hbmBytes', 'hbmBytes'],
  ['hostBytes', 'hostBytes'],
  ['diskBytes', 'diskBytes'],
] as const;

export async function planCommand(options: Options, output: Output): Promise<void> {
  const plan = await planRun(toPlanInput(options));
  const path = options['output'] as string | undefined;
  if (path !== undefined) await writePlanFile(plan, path);
  if (options['json'] === true) printJson(output, planToJson(plan));
  else output.out(planSummary(plan));
  if (path !== undefined) output.err(`wrote ${path}`);
}

/** Without --deepspeed: a model of any size wants its states sharded. */
const DEFAULT_DEEPSPEED = { zero_optimization: { stage: 3 }, train_micro_batch_size_per_gpu: 1 };

/** Options in the API's words. The specs check the values; only what is a matter of options is checked here. */
export function toPlanInput(options: Options): PlanInput {
  const { model, deepspeed } = options as { readonly model: string; readonly deepspeed?: string };
  // pick() cannot know the type of each field; parseRunInput checks them all.
  const run = pick(options, RUN_FIELDS) as unknown as PlanInput['run'];
  return { model: modelFolder(model), cluster: toCluster(options), run, deepspeed: deepspeed ?? DEFAULT_DEEPSPEED };
}

function toCluster(options: Options): string | Options {
  const short = pick(options, CLUSTER_FIELDS);
  const path = options['cluster'] as string | undefined;
  if (path !== undefined && Object.keys(short).length > 0) {
    throw new FpdtError(`--cluster describes the ranks already; ${Object.keys(short).map(optionName).join(', ')} cannot be given as well`, {
      code: 'usage',
      hint: 'edit the cluster file, or leave --cluster out',
    });
  }
  if (path !== undefined) return path;
  if (short['gpus'] === undefined || short['gpu'] === undefined) {
    throw new FpdtError('the ranks are not given', {
      code: 'usage',
      hint: 'give --gpus <n> and --gpu <name>, e.g. --gpus 4 --gpu a100-80gb, or --cluster cluster.json',
    });
  }
  return short;
}

function pick(options: Options, fields: readonly (readonly [string, string])[]): Options {
  return Object.fromEntries(fields.filter(([option]) => options[option] !== undefined).map(([option, field]) => [field, options[option]]));
}

/** `hbmBytes` as it is given: `--hbm-bytes`. */
function optionName(field: string): string {
  return `--${field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
