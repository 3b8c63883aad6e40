/** From options to the API's words. The specs check the values; only what is a matter of options is checked here. */
import { FpdtError } from '../spec/errors.js';
import type { PlanInput } from '../strategy/planRun.js';
import { modelFolder } from './modelPath.js';

export type Options = Readonly<Record<string, unknown>>;

/** `[option, field of run]`. */
const RUN_FIELDS = [
  ['seqLen', 'seqLen'],
  ['policy', 'policy'],
  ['released', 'released'],
  ['sequenceParallel', 'sequenceParallelSize'],
  ['dataParallel', 'dataParallelSize'],
  ['chunks', 'numChunks'],
  ['segmentLayers', 'segmentLayers'],
  ['kvTile', 'kvTileChunks'],
  ['lossTiles', 'numLossTiles'],
  ['tokenTiles', 'numTokenTiles'],
  ['prefetchDepth', 'prefetchDepth'],
  ['headGroups', 'headGroups'],
  ['hbmReserve', 'hbmReserve'],
  ['strategy', 'strategy'],
  ['attention', 'attention'],
  ['kernels', 'kernels'],
  ['dtype', 'dtype'],
  ['ropeTheta', 'ropeTheta'],
  ['ropeScaling', 'ropeScaling'],
  ['freeze', 'freeze'],
  ['lora', 'lora'],
  ['steps', 'numSteps'],
  ['seed', 'seed'],
  ['packing', 'packing'],
  ['evaluate', 'evaluate'],
] as const;

const CLUSTER_FIELDS = [
  ['gpus', 'gpus'],
  ['gpu', 'gpu'],
  ['ranksPerNode', 'ranksPerNode'],
  ['hbmBytes', 'hbmBytes'],
  ['hostBytes', 'hostBytes'],
  ['diskBytes', 'diskBytes'],
] as const;

const EXAMPLES = { gpus: '--gpus 4', gpu: '--gpu a100-80gb' } as const;
type ClusterOption = keyof typeof EXAMPLES;

/** `needs` are the options that must be given where no cluster file is. */
export function toPlanInput(options: Options, needs: readonly ClusterOption[] = ['gpus', 'gpu']): PlanInput {
  const { model, deepspeed } = options as { readonly model: string; readonly deepspeed?: string };
  // pick() cannot know the type of each field; parseRunInput checks them all.
  const run = pick(options, RUN_FIELDS) as unknown as PlanInput['run'];
  return { model: modelFolder(model), cluster: toCluster(options, needs), run, deepspeed };
}

function toCluster(options: Options, needs: readonly ClusterOption[]): string | Options {
  const short = pick(options, CLUSTER_FIELDS);
  const path = options['cluster'] as string | undefined;
  if (path !== undefined && Object.keys(short).length > 0) {
    throw new FpdtError(`--cluster describes the ranks already; ${Object.keys(short).map(optionName).join(', ')} cannot be given as well`, {
      code: 'usage',
      hint: 'edit the cluster file, or leave --cluster out',
    });
  }
  if (path !== undefined) return path;
  if (needs.some((option) => short[option] === undefined)) {
    throw new FpdtError('the ranks are not given', {
      code: 'usage',
      hint: `give ${needs.map((option) => EXAMPLES[option]).join(' and ')}, or --cluster cluster.json`,
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
