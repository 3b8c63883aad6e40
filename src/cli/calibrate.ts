/** `fpdt calibrate`: a cluster file of this machine, measured by Python or, with --facts, from what the machine says of itself. */
import { dirname } from 'node:path';
import { calibrateMachine, speedFactor } from '../bridge/calibration.js';
import type { CalibrationInput } from '../bridge/calibrationProbes.js';
import { calibrationText, readShapes, shapesFile, shapesPath } from '../bridge/calibrationFile.js';
import { resolvePython } from '../bridge/python.js';
import { clusterFromFacts } from '../machine/cluster.js';
import { readMachineFacts } from '../machine/read.js';
import { checkPlainFile, writeWholeFile } from '../plan/wholeFile.js';
import type { FactSources } from '../native.js';
import type { ModelDtype } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { isFolder } from '../spec/jsonFile.js';
import { type Output, printJson } from './output.js';

interface Options {
  readonly facts?: boolean;
  readonly gpu?: string;
  readonly ranks?: number;
  readonly output?: string;
  readonly model?: string;
  readonly dtype?: ModelDtype;
  readonly deepspeed?: string;
  readonly chunkTokens?: number;
  readonly diskFolder?: string;
  readonly seconds?: number;
  readonly compare?: string;
  readonly python?: string;
  readonly json?: boolean;
}

type OptionName = keyof Options;
/** Options of one way alone. */
const OF_FACTS: readonly OptionName[] = ['json'];
/** Of what is measured, which a comparison takes from the calibration that it compares with. */
const OF_SHAPES: readonly OptionName[] = ['model', 'ranks', 'output', 'dtype', 'deepspeed', 'chunkTokens', 'diskFolder', 'gpu'];
const OF_MEASURING: readonly OptionName[] = ['model', 'dtype', 'deepspeed', 'chunkTokens', 'diskFolder', 'seconds', 'compare', 'python'];
const WHAT = 'the cluster file';
const DEFAULTS = { ranks: 2, chunkTokens: 2048, seconds: 15 } as const;

export async function calibrateCommand(
  options: Readonly<Record<string, unknown>>,
  output: Output,
  sources: FactSources = {},
): Promise<void> {
  const asked: Options = options;
  if (asked.facts === true) {
    refuse(asked, OF_MEASURING, 'facts', 'leave it out, or leave --facts out to measure this machine');
    await writeFacts(asked, output, sources);
  } else {
    refuse(asked, OF_FACTS, 'measuring', 'give --facts as well, or leave it out');
    if (asked.compare !== undefined) refuse(asked, OF_SHAPES, 'comparing', 'leave it out: what was measured is measured again');
    await measure(asked, output);
  }
}

function refuse(options: Options, names: readonly OptionName[], way: string, hint: string): void {
  const given = names.find((name) => options[name] !== undefined);
  if (given === undefined) return;
  const word = `--${given.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  throw new FpdtError(`${word} is no option of ${way}`, { code: 'usage', hint });
}

async function writeFacts({ ranks, gpu, output: path, json }: Options, output: Output, sources: FactSources): Promise<void> {
  const { cluster, sources: told } = clusterFromFacts(readMachineFacts(sources), { ranks, gpu });
  const text = `${JSON.stringify(cluster, null, 2)}\n`;
  if (path !== undefined) await writeWholeFile(path, text, WHAT);
  if (json === true) printJson(output, { kind: 'factsCluster', cluster, sources: told });
  else if (path === undefined) output.out(text.trimEnd());
  for (const line of told) output.err(line);
  if (path !== undefined) output.err(`wrote ${path}`);
}

/** Before anything is measured, which would be lost. */
function checkPlace(path: string): void {
  if (!isFolder(dirname(path)))
    throw new FpdtError(`cannot write ${path}: ${dirname(path)} is no folder`, {
      code: 'file-unwritable',
      hint: 'give another place with --output',
    });
  for (const target of [path, shapesPath(path)]) checkPlainFile(target, WHAT);
}

async function measure(options: Options, output: Output): Promise<void> {
  const python = resolvePython(options.python);
  const seconds = options.seconds ?? DEFAULTS.seconds;
  if (options.compare !== undefined) {
    const { cluster, shapes } = readShapes(options.compare);
    const now = await calibrateMachine(python, { ...shapes, seconds });
    printJson(output, { factor: await speedFactor(shapes, cluster, now) });
    return;
  }
  const { model, output: path } = options;
  if (model === undefined || path === undefined) {
    throw new FpdtError('calibrate: neither what to measure with nor --facts is given', {
      code: 'usage',
      hint: 'measure with --model config.json --output cluster.json, or take catalog rates with --facts',
    });
  }
  checkPlace(path);
  const { ranks = DEFAULTS.ranks, chunkTokens = DEFAULTS.chunkTokens, dtype, deepspeed, gpu, diskFolder } = options;
  const input: CalibrationInput = { model, ranks, chunkTokens, dtype, deepspeed, gpu, diskFolder, seconds };
  const cluster = await calibrateMachine(python, input);
  await writeWholeFile(shapesPath(path), `${JSON.stringify(shapesFile(input), null, 2)}\n`, WHAT);
  await writeWholeFile(path, `${JSON.stringify(cluster, null, 2)}\n`, WHAT);
  output.err(calibrationText(cluster));
  output.err(`wrote ${path}`);
}
