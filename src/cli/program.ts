/** Commands and their options. What a command does is loaded when it runs, so that `plan` stays quick and needs no Python. */
import { MODEL_DTYPES } from '../spec/dtype.js';
import { Command, CommanderError, Option } from 'commander';
import { DEVICE_NAMES } from '../catalog/devices.js';
import { NON_FINITE_POLICIES, SAVE_POLICIES } from '../spec/runPolicies.js';
import { FpdtError } from '../spec/errors.js';
import { parseTokens } from '../spec/sizes.js';
import { withData } from './dataFlags.js';
import { UNMET, USAGE } from './exitCodes.js';
import { CONSOLE, type Output, printError, printJson } from './output.js';
import { names, positiveNumber, PRICE, wholeNumber, wholeNumberFromOne, wholeNumbers, withRequest } from './requestOptions.js';
import { VERSION } from '../package.js';
import { TORCH_BUILDS } from '../setup/torchBuilds.js';

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
  for (const add of [
    addPlan,
    addMaxSeq,
    addMinGpus,
    addMinHost,
    addRun,
    addAgent,
    addExport,
    addShow,
    addDiff,
    addCalibrate,
    addSetup,
    addDoctor,
  ])
    add(program, output, setExitCode);
  return program;
}

function addPlan(program: Command, output: Output, setExitCode: SetExitCode): void {
  const command = program.command('plan').description('Choose a strategy and write the execution plan; needs no Python and no GPU');
  withRequest(command)
    .option('--output <path>', 'write the plan file here')
    .option('--compare', 'all policies side by side instead: what fits, step time, MFU, pools, longest sequence')
    .option('--explain', 'why this strategy: what bounds it, the next best, and what each choice would change')
    .option('--require <requirements>', `exit with ${UNMET} where the plan does not keep to them: stepSeconds<60,hbm<75GiB`)
    .action(async (options: Record<string, unknown>) => {
      const { planCommand } = await import('./plan.js');
      setExitCode(await planCommand(options, output));
    });
}

function addMaxSeq(program: Command, output: Output): void {
  const command = program.command('max-seq').description('Plan the longest sequence that fits, and say what keeps it from a longer one');
  withRequest(command, '--seq-len').action(async (options: Record<string, unknown>) => {
    const { maxSeqCommand } = await import('./maxSeq.js');
    await maxSeqCommand(options, output);
  });
}

function addMinGpus(program: Command, output: Output): void {
  const command = program
    .command('min-gpus')
    .description('Plan on the fewest GPUs that a sequence fits on, and say what keeps it from fewer');
  withRequest(command, '--gpus')
    .option('--max-gpus <n>', 'try no more; default: 1024', wholeNumber)
    .action(async (options: Record<string, unknown>) => {
      const { minGpusCommand } = await import('./minGpus.js');
      await minGpusCommand(options, output);
    });
}

function addMinHost(program: Command, output: Output): void {
  const command = program.command('min-host').description('Plan in the least host memory that a sequence fits in, and say what needs it');
  withRequest(command, '--host-bytes').action(async (options: Record<string, unknown>) => {
    const { minHostCommand } = await import('./minHost.js');
    await minHostCommand(options, output);
  });
}

function addDiff(program: Command, output: Output): void {
  program
    .command('diff')
    .description('Print what differs between two plan files: inputs, strategy, memory by item, time by op kind')
    .argument('<a>', 'plan file of fpdt plan --output')
    .argument('<b>', 'another one')
    .option('--json', 'print JSON')
    .action(async (a: string, b: string, options: Record<string, unknown>) => {
      const { diffCommand } = await import('./diff.js');
      await diffCommand(a, b, options, output);
    });
}

function addRun(program: Command, output: Output, setExitCode: SetExitCode): void {
  const command = program
    .command('run')
    .description('Start the ranks and train by a plan file')
    .argument('<plan>', 'plan file of fpdt plan --output');
  withData(command)
    .option('--weights <folder>', "Hugging Face folder, or a model of the local cache, to start from; default: the plan's seed")
    .option('--export <folder>', 'write the trained model here, a new folder that from_pretrained loads')
    .option('--checkpoint <folder>', 'save the training state here: when the run ends or is stopped, and as --every says')
    .option('--every <n>', 'optimizer steps between two checkpoints', wholeNumberFromOne)
    .option('--keep <n>', 'how many of the newest checkpoints stay; default: 3', wholeNumberFromOne)
    .addOption(new Option('--on-save-failure <what>', 'when a checkpoint cannot be written; default: stop').choices([...SAVE_POLICIES]))
    .addOption(
      new Option('--on-non-finite <what>', 'on NaN or infinity in loss or gradients; default: as DeepSpeed does').choices([
        ...NON_FINITE_POLICIES,
      ]),
    )
    .option('--resume <checkpoint>', 'go on from this folder; auto: the newest sound one of --checkpoint, or from the start')
    .option('--restarts <n>', 'start ranks that died again from the newest checkpoint, so many times; default: 0', wholeNumber)
    .option('--dump-grads <folder>', 'write every gradient of every step as safetensors')
    .option('--copy-mode <mode>', 'CPU: eager, lazy or random order, or threads: native copies; GPU: events or native')
    .option('--poison', 'fill arenas and dead buffers with NaN')
    .option('--seed <n>', 'seed of --copy-mode random and threads', wholeNumber)
    .option('--steps <n>', "optimizer steps, instead of the plan's number", wholeNumber)
    .option('--eval-data <path>', 'held-out tokens, as --data has them, for a plan made with --evaluate')
    .option('--eval-sequences <n>', 'evaluate so many sequences of them; default: all, each once', wholeNumberFromOne)
    .option('--eval-every <n>', 'optimizer steps between two evaluations; default: at the end alone', wholeNumberFromOne)
    .option('--run-folder <folder>', 'new folder for config.json, plan.json, metrics.jsonl and rank-N.log of the run')
    .addOption(new Option('--on-unwritable <what>', 'where a line cannot be written there; default: remark').choices(['remark', 'stop']))
    .option('--log <names>', 'also take metrics to tensorboard, wandb or mlflow, where they are installed: tensorboard,wandb', names)
    .option('--disk-folder <folder>', "folder for what a plan keeps on disk; on the disk the plan's rates are for")
    .option('--record-layers <n>', 'telemetry has the single ops of one decoder layer in so many; default: 0, none', wholeNumber)
    .option('--trace-steps <numbers>', 'optimizer steps to take a profiler trace of, from 0: 0,5', wholeNumbers)
    .option('--trace-folder <folder>', 'folder for these traces')
    .option('--hostfile <path>', 'put the ranks on these hosts, by ssh: lines of `host slots=n`, as DeepSpeed has them')
    .option('--include <hosts>', 'of the hostfile, use only these: worker-0@worker-1:0,2')
    .option('--exclude <hosts>', 'of the hostfile, leave these out')
    .option('--ssh <command>', 'runs a command on a host; default: ssh that never asks')
    .option('--slurm', 'submit the run to Slurm instead, with a script that puts the ranks on the hosts of its allocation')
    .option('--slurm-options <words>', "of sbatch, in their long form: '--partition=gpu --time=8:00:00'")
    .option('--slurm-script <path>', 'keep the script here; default: fpdt.sbatch')
    .option('--srun', 'put the ranks on the hosts of the Slurm allocation that this is in')
    .option('--address <ip>', 'of this host, as the others reach it; default: as packets to them would say')
    .option('--check-shapes', 'first compare the planned parameters with what transformers builds')
    .option('--python <path>', 'Python of the ranks; default: FPDT_PYTHON, then what setup made')
    .option('--json', 'print one JSON object per event, the last one with the result')
    .action(async (path: string, options: Record<string, unknown>) => {
      const { runCommand } = await import('./run.js');
      setExitCode(await runCommand(path, options, output));
    });
}

/** Not for people: `fpdt run` starts it on other hosts. */
function addAgent(program: Command, output: Output): void {
  program.command('agent', { hidden: true }).action(async () => {
    const { agentCommand } = await import('./agent.js');
    await agentCommand(output);
  });
}

function addExport(program: Command, output: Output): void {
  program
    .command('export')
    .description('Write the model that a plan file starts from as a Hugging Face folder, in the dtype of the plan')
    .argument('<plan>', 'plan file of fpdt plan --output')
    .requiredOption('--output <folder>', 'new folder that from_pretrained loads')
    .option('--weights <folder>', "Hugging Face folder, or a model of the local cache, with the weights; default: the plan's seed")
    .option('--python <path>', 'Python to use; default: FPDT_PYTHON, then what setup made')
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
    .addOption(PRICE)
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
    .option(
      '--gpu <name>',
      `with --facts: take the rates of this catalog name; else measure such a device instead of the CPU: ${DEVICE_NAMES.join(', ')}`,
    )
    .option('--ranks <n>', 'ranks of the run, all on this machine; default: with --facts as many as GPUs, else 2', wholeNumberFromOne)
    .option('--output <path>', 'cluster.json to write')
    .option('--model <path>', 'Hugging Face config.json with the shapes to measure')
    .addOption(new Option('--dtype <name>', 'of the run; default: as plan has it').choices([...MODEL_DTYPES]))
    .option('--deepspeed <path>', 'ds_config.json of the run; default: ZeRO-3 and AdamW of PyTorch')
    .option('--chunk-tokens <tokens>', 'tokens of a chunk of all ranks, such as 2048 or 2K; default: 2048', (text) =>
      parseTokens(text, '--chunk-tokens'),
    )
    .option('--disk-folder <folder>', 'folder on a disk that the run may use as a pool')
    .option('--seconds <s>', 'about how long all of it takes; default: 15', positiveNumber)
    .option('--compare <path>', 'how fast this machine is now, against what this cluster.json was measured on')
    .option('--python <path>', 'Python to measure with; default: FPDT_PYTHON, then what setup made')
    .option('--json', 'with --facts: print the cluster and where its numbers are from as JSON')
    .action(async (options: Record<string, unknown>) => {
      const { calibrateCommand } = await import('./calibrate.js');
      await calibrateCommand(options, output);
    });
}

function addSetup(program: Command, output: Output): void {
  program
    .command('setup')
    .description(
      'Make the Python environment that runs use: torch for this machine, DeepSpeed and the rest in the versions fpdt is tested with',
    )
    .option('--into <folder>', 'a new folder for it; default: one of yours for this version, or .venv of a checkout')
    .option('--python <path>', 'Python 3.11 to 3.13 to make it with; default: the first one in PATH')
    .option('--uv', 'install with uv, which is quicker and fetches a Python where there is none')
    .addOption(new Option('--torch <build>', 'default: auto, cuda where nvidia-smi names a GPU').choices(TORCH_BUILDS))
    .option('--also <file>', 'requirements file of your own to install into it')
    .option('--json', 'print JSON')
    .action(async (options: Record<string, unknown>) => {
      const { setupCommand } = await import('./setup.js');
      setupCommand(options, output);
    });
}

function addDoctor(program: Command, output: Output, setExitCode: SetExitCode): void {
  program
    .command('doctor')
    .description('Check what a run needs: Node, native addon, Python packages; and this machine: memory, limits, NUMA, GPUs')
    .option('--python <path>', 'Python to check; default: FPDT_PYTHON, then what setup made')
    .option('--json', 'print JSON')
    .action(async (options: Record<string, unknown>) => {
      const { doctorCommand } = await import('./doctor.js');
      setExitCode(await doctorCommand(options, output));
    });
}
