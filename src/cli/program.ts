/** Commands and their options. What a command does is loaded when it runs, so that `plan` stays quick and needs no Python. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { DEVICE_NAMES } from '../catalog/devices.js';
import { MODEL_DTYPES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { POLICIES } from '../spec/strategy.js';
import { CONSOLE, type Output, printError, printJson } from './output.js';
import { VERSION } from '../package.js';

const USAGE = 2;

/** Runs one command line (without node and script) and returns its exit code. */
export async function runCli(args: readonly string[], output: Output = CONSOLE): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(output, (code) => (exitCode = code));
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    const asJson = args.includes('--json');
    if (error instanceof CommanderError) return usage(error, asJson, output);
    printError(output, error, asJson);
    return error instanceof FpdtError && error.code === 'usage' ? USAGE : 1;
  }
}

/** Commander has already said what is wrong, with the nearest known option. */
function usage(error: CommanderError, asJson: boolean, output: Output): number {
  if (error.exitCode === 0) return 0;
  const message = error.message.replace(/^error: /, '');
  if (asJson) printJson(output, { error: { code: 'usage', message } });
  return USAGE;
}

type SetExitCode = (code: number) => void;

function buildProgram(output: Output, setExitCode: SetExitCode): Command {
  const program = new Command('fpdt')
    .description('Plan, look into and run the training of transformers on very long sequences.')
    .version(VERSION)
    .showHelpAfterError('(fpdt --help lists commands and options)')
    .exitOverride()
    .configureOutput({ writeOut: (text) => output.out(text.trimEnd()), writeErr: (text) => output.err(text.trimEnd()) });
  for (const add of [addPlan, addRun, addExport, addShow, addCalibrate, addDoctor]) add(program, output, setExitCode);
  return program;
}

function addPlan(program: Command, output: Output): void {
  program
    .command('plan')
    .description('Choose a strategy and write the execution plan; needs no Python and no GPU')
    .requiredOption('--model <path>', 'Hugging Face config.json, its folder, or a model of the local cache: org/name')
    .requiredOption('--seq-len <tokens>', 'tokens of a sequence: 131072, 128K, 2M')
    .option('--gpus <n>', 'number of ranks', wholeNumber)
    .option('--gpu <name>', `catalog name: ${DEVICE_NAMES.join(', ')}`)
    .option('--ranks-per-node <n>', 'ranks that share a node', wholeNumber)
    .option('--hbm-bytes <bytes>', 'usable device memory of a rank, e.g. 70G')
    .option('--host-bytes <bytes>', 'usable pinned host memory of a rank, e.g. 200G')
    .option('--disk-bytes <bytes>', "a rank's share of a local disk for what neither memory holds, e.g. 1000G; default: none")
    .option('--cluster <path>', 'cluster.json, e.g. from a calibration; instead of --gpus and --gpu')
    .option('--deepspeed <path>', 'ds_config.json; default: ZeRO-3')
    .addOption(new Option('--policy <name>', 'how to train').choices(POLICIES).default('auto'))
    .option('--sequence-parallel <n>', 'ranks that share a sequence; default: as many as the heads allow', wholeNumber)
    .option('--data-parallel <n>', 'groups of ranks with their own sequences', wholeNumber)
    .option('--chunks <n>', 'chunks of a sequence; default: the solver chooses', wholeNumber)
    .option('--segment-layers <n>', 'layers that share one checkpoint', wholeNumber)
    .option('--kv-tile <chunks>', 'chunks of fetched keys and values that are attended to together', wholeNumber)
    .option('--loss-tiles <n>', 'pieces that the loss of a chunk is computed in', wholeNumber)
    .option('--token-tiles <n>', 'pieces that projections and the MLP of a chunk are computed in', wholeNumber)
    .option('--prefetch-depth <n>', 'slots of a buffer that is fetched chunk by chunk', wholeNumber)
    .option('--hbm-reserve <share>', 'share of GPU memory to keep free; default: 4%')
    .option('--strategy <path>', 'JSON file with choices to keep to, also for ranges of layers; the rest the solver chooses')
    .option('--attention <kernel>', 'attention kernel, e.g. reference; default: the fastest of the device')
    .addOption(new Option('--dtype <name>', 'dtype of weights and activations').choices(MODEL_DTYPES))
    .option('--rope-theta <base>', "base of the rotary embedding, instead of the config's", positiveNumber)
    .option('--rope-scaling <type:factor>', 'context extension: yarn:8 for 8 times the length that the model was trained at')
    .option('--freeze <patterns...>', "weights that do not train, by name or pattern: model.embed_tokens.weight '*.mlp.*'")
    .option('--lora <path>', "peft's adapter_config.json: adapters of linear modules train, and nothing else")
    .option('--steps <n>', 'optimizer steps of a run', wholeNumber)
    .option('--seed <n>', 'seed of the initial weights', wholeNumber)
    .option('--output <path>', 'write the plan file here')
    .option('--json', 'print the plan summary as JSON')
    .action(async (options: Record<string, unknown>) => {
      const { planCommand } = await import('./plan.js');
      await planCommand(options, output);
    });
}

function addRun(program: Command, output: Output, setExitCode: SetExitCode): void {
  program
    .command('run')
    .description('Start the ranks and train by a plan file')
    .argument('<plan>', 'plan file of fpdt plan --output')
    .requiredOption('--data <path>', 'raw bytes (a token each), or .npy or .bin with int32 token ids')
    .option('--weights <folder>', "Hugging Face folder, or a model of the local cache, to start from; default: the plan's seed")
    .option('--export <folder>', 'write the trained model here, a new folder that from_pretrained loads')
    .option('--dump-grads <folder>', 'write every gradient of every step as safetensors')
    .option('--copy-mode <mode>', 'when the CPU device runs copies and exchanges: eager, lazy or random')
    .option('--poison', 'fill arenas and dead buffers with NaN')
    .option('--seed <n>', 'seed of --copy-mode random', wholeNumber)
    .option('--steps <n>', "optimizer steps, instead of the plan's number", wholeNumber)
    .option('--disk-folder <folder>', "folder for what a plan keeps on disk; on the disk the plan's rates are for")
    .option('--record-layers <n>', 'telemetry has the single ops of one decoder layer in so many; default: 0, none', wholeNumber)
    .option('--trace-steps <numbers>', 'optimizer steps to take a profiler trace of, from 0: 0,5', wholeNumbers)
    .option('--trace-folder <folder>', 'folder for these traces')
    .option('--check-shapes', 'first compare the planned parameters with what transformers builds')
    .option('--python <path>', 'Python of the ranks; default: FPDT_PYTHON, then .venv')
    .option('--json', 'print one JSON object per event, the last one with the result')
    .action(async (path: string, options: Record<string, unknown>) => {
      const { runCommand } = await import('./run.js');
      setExitCode(await runCommand(path, options, output));
    });
}

function addExport(program: Command, output: Output): void {
  program
    .command('export')
    .description('Write the model that a plan file starts from as a Hugging Face folder, in the dtype of the plan')
    .argument('<plan>', 'plan file of fpdt plan --output')
    .requiredOption('--output <folder>', 'new folder that from_pretrained loads')
    .option('--weights <folder>', "Hugging Face folder, or a model of the local cache, with the weights; default: the plan's seed")
    .option('--python <path>', 'Python to use; default: FPDT_PYTHON, then .venv')
    .option('--json', 'print JSON')
    .action(async (path: string, options: Record<string, unknown>) => {
      const { exportCommand } = await import('./export.js');
      await exportCommand(path, options, output);
    });
}

function addShow(program: Command, output: Output): void {
  program
    .command('show')
    .description('Print a plan file: its summary, its step program, or one section with a column per stream')
    .argument('<plan>', 'plan file of fpdt plan --output')
    .argument('[section]', 'a section that the summary lists, e.g. layerForward or layerBackward')
    .option('--program', 'print the step program: a line for every turn and call')
    .option('--ops', 'print the section as op text that parses back')
    .option('--json', 'print JSON')
    .action(async (path: string, section: string | undefined, options: Record<string, unknown>) => {
      const { showCommand } = await import('./show.js');
      await showCommand(path, section, options, output);
    });
}

function addCalibrate(program: Command, output: Output): void {
  program
    .command('calibrate')
    .description('Write a cluster file of this machine for fpdt plan --cluster: measured on CPU ranks, or with --facts by its GPUs')
    .option('--facts', 'measure nothing: number and sizes of the GPUs that are here, with the rates of the catalog')
    .option('--gpu <name>', `with --facts: take the rates of this catalog name: ${DEVICE_NAMES.join(', ')}`)
    .option('--ranks <n>', 'ranks of the run, all on this machine; default: with --facts as many as GPUs, else 2', wholeNumber)
    .option('--output <path>', 'cluster.json to write')
    .option('--model <path>', 'Hugging Face config.json with the shapes to measure')
    .option('--seq-len <tokens>', 'tokens of a sequence; default: 16384', wholeNumber)
    .option('--chunk-tokens <tokens>', 'tokens of a chunk of all ranks; default: 2048', wholeNumber)
    .option('--disk-folder <folder>', 'folder on a disk that the run may use as a pool')
    .option('--seconds <s>', 'limit for all of it; default: 10', positiveNumber)
    .option('--compare <path>', 'how fast this machine is now, against what this cluster.json was measured on')
    .option('--python <path>', 'Python to measure with; default: FPDT_PYTHON, then .venv')
    .option('--json', 'with --facts: print the cluster and where its numbers are from as JSON')
    .action(async (options: Record<string, unknown>) => {
      const { calibrateCommand } = await import('./calibrate.js');
      await calibrateCommand(options, output);
    });
}

function addDoctor(program: Command, output: Output, setExitCode: SetExitCode): void {
  program
    .command('doctor')
    .description('Check what a run needs: Node, native addon, Python packages; and this machine: memory, limits, NUMA, GPUs')
    .option('--python <path>', 'Python to check; default: FPDT_PYTHON, then .venv')
    .option('--json', 'print JSON')
    .action(async (options: Record<string, unknown>) => {
      const { doctorCommand } = await import('./doctor.js');
      setExitCode(await doctorCommand(options, output));
    });
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`Expected a whole number, found '${text}'.`);
  return Number(text);
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0) || !Number.isFinite(value)) {
    throw new InvalidArgumentError(`Expected a number above 0, found '${text}'.`);
  }
  return value;
}

function wholeNumbers(text: string): readonly number[] {
  return text.split(',').map((item) => wholeNumber(item.trim()));
}
