/** Options that say what is asked for: of `fpdt plan`, and of the commands that look for one of them by themselves. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { DEVICE_NAMES } from '../catalog/devices.js';
import { MODEL_DTYPES } from '../spec/dtype.js';
import { ALL_POLICIES } from '../spec/releasedPrograms.js';

/** What a command may look for. */
type LookedFor = '--seq-len' | '--gpus' | '--host-bytes';

export const PRICE = new Option('--price <usd>', 'US dollars an hour of one GPU: what a step and a billion tokens cost').argParser(
  positiveNumber,
);

/** Adds all of them but what the command looks for, with --price and --json. */
export function withRequest(command: Command, lookedFor?: LookedFor): Command {
  for (const option of REQUEST) if (option.long !== lookedFor) command.addOption(option);
  return command.addOption(PRICE).option('--json', 'print JSON; docs/cli.md says its schema');
}

const REQUEST: readonly Option[] = [
  new Option('--model <path>', 'Hugging Face config.json, its folder, or a model of the local cache: org/name').makeOptionMandatory(),
  new Option('--seq-len <tokens>', 'tokens of a sequence: 131072, 128K, 2M').makeOptionMandatory(),
  counted('--gpus <n>', 'number of ranks'),
  new Option('--gpu <name>', `catalog name: ${DEVICE_NAMES.join(', ')}`),
  counted('--ranks-per-node <n>', 'ranks that share a node'),
  new Option('--hbm-bytes <bytes>', 'usable device memory of a rank, e.g. 70G'),
  new Option('--host-bytes <bytes>', 'usable pinned host memory of a rank, e.g. 200G'),
  new Option('--disk-bytes <bytes>', "a rank's share of a local disk for what neither memory holds, e.g. 1000G; default: none"),
  new Option('--cluster <path>', 'cluster.json, e.g. from a calibration; instead of --gpus and --gpu'),
  new Option('--deepspeed <path>', 'ds_config.json; default: ZeRO-3'),
  new Option('--policy <name>', 'how to train; default: auto. fpdt-released, alst-released and upipe are plan-only').choices(ALL_POLICIES),
  new Option('--released <options>', 'switches of a plan-only policy: checkpoints=none,tiledMlp=off'),
  counted('--sequence-parallel <n>', 'ranks that share a sequence; default: as many as the heads allow'),
  counted('--data-parallel <n>', 'groups of ranks with their own sequences'),
  counted('--chunks <n>', 'chunks of a sequence; default: the solver chooses'),
  counted('--segment-layers <n>', 'layers that share one checkpoint'),
  counted('--kv-tile <chunks>', 'chunks of fetched keys and values that are attended to together'),
  counted('--loss-tiles <n>', 'pieces that the loss of a chunk is computed in'),
  counted('--token-tiles <n>', 'pieces that projections and the MLP of a chunk are computed in'),
  counted('--prefetch-depth <n>', 'slots of a buffer that is fetched chunk by chunk'),
  counted('--head-groups <n>', "groups of a rank's heads that a layer attends to one after the other; default: the solver chooses"),
  new Option('--hbm-reserve <share>', 'share of GPU memory to keep free; default: 4%'),
  new Option('--strategy <path>', 'JSON file with choices to keep to, also for ranges of layers; the rest the solver chooses'),
  new Option('--attention <kernel>', 'attention kernel, e.g. cudnn; default: the fastest that can run the model there (docs/kernels.md)'),
  new Option(
    '--kernels <choices>',
    'kernels beside attention: auto, plain, or by kind: norm=plain,merge=plain; default: auto (docs/kernels.md)',
  ),
  new Option('--dtype <name>', 'dtype of weights and activations').choices(MODEL_DTYPES),
  new Option('--rope-theta <base>', "base of the rotary embedding, instead of the config's").argParser(positiveNumber),
  new Option('--rope-scaling <type:factor>', 'context extension: yarn:8 for 8 times the length that the model was trained at'),
  new Option('--freeze <patterns...>', "weights that do not train, by name or pattern: model.embed_tokens.weight '*.mlp.*'"),
  new Option('--lora <path>', "peft's adapter_config.json: adapters of linear modules train, and nothing else"),
  new Option('--packing', 'sequences may be packed documents, and tokens have loss weights; what is predicted is for one document'),
  counted('--steps <n>', 'optimizer steps of a run'),
  counted('--seed <n>', 'seed of the initial weights'),
  new Option('--evaluate', 'add a program that evaluates held-out data, for fpdt run --eval-data'),
];

function counted(flags: string, description: string): Option {
  return new Option(flags, description).argParser(wholeNumber);
}

/** Names with commas between them. */
export function names(text: string): readonly string[] {
  return text.split(',').map((name) => name.trim());
}

export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`Expected a whole number, found '${text}'.`);
  return Number(text);
}

export function wholeNumberFromOne(text: string): number {
  const value = wholeNumber(text);
  if (value < 1 || !Number.isSafeInteger(value)) throw new InvalidArgumentError(`Expected a whole number of at least 1, found '${text}'.`);
  return value;
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || !Number.isFinite(value)) {
    throw new InvalidArgumentError(`Expected a number above 0, found '${text}'.`);
  }
  return value;
}

export function wholeNumbers(text: string): readonly number[] {
  return text.split(',').map((item) => wholeNumber(item.trim()));
}
