/**
 * `npm run bench:grid -- [--seed N] [--draws N] [--cases N] [--json]`: what `auto` chooses against strategies that a user might force, drawn
 * at random from those that fit, and all that are one choice away from its own. The fastest of them by estimate is simulated, as the
 * choice is, and must not be faster by more than the target. Fails where it is.
 */
import { parseOptions, runScript, wholeNumber } from '../scripts/options.js';
import { mulberry32 } from '../src/address/layout.js';
import { parseSpecs } from '../src/catalog/specs.js';
import { predictRun } from '../src/predict/predict.js';
import { parseTokens } from '../src/spec/sizes.js';
import type { Strategy } from '../src/spec/strategy.js';
import { buildStrategy } from '../src/strategy/evaluate.js';
import { type Evaluator, estimator } from '../src/strategy/evaluator.js';
import { type BuildInput, type Setting, settingOf } from '../src/strategy/setting.js';
import { findStrategy } from '../src/strategy/findStrategy.js';
import { oneKnobAway } from '../src/strategy/explain/knobs.js';
import { drawStrategies } from './forcedStrategies.js';
import { type ModelName, modelConfig } from './models.js';

const LENGTHS = ['8K', '32K', '128K', '256K', '512K', '1M', '2M', '4M'];
const GPUS = ['a100-80gb', 'h100-80gb', 'h200'];
/** Each with numbers of GPUs on which its weights leave room: in turn. */
const MODELS: readonly (readonly [ModelName, readonly number[]])[] = [
  ['1B', [1, 4, 8]],
  ['3B', [4, 8, 2]],
  ['8B', [4, 8, 32]],
  ['32B', [8, 16, 32]],
  ['70B', [32, 64, 128]],
];
const MOST_TOKENS = parseTokens('4M');
const LONG_TOKENS = parseTokens('128K');
const AT_MOST = { long: 1.005, short: 1.02 };

interface GridCase {
  readonly name: string;
  /** Of auto's choice over the fastest other, simulated; at most 1 where auto is the fastest. */
  readonly ratio: number;
  readonly atMost: number;
  readonly numOthers: number;
  /** The fastest other where it is faster than it may be, and what was chosen. */
  readonly faster?: Strategy;
  readonly chosen?: Strategy;
}

interface Asked {
  readonly name: string;
  readonly seqLen: string;
  readonly input: BuildInput;
}

const NUM_CASES = 55;

/**
 * The first `numCases` of a fixed list, five models by eleven lengths on GPUs in turn, in an order that mixes them. One at a time: what is
 * known of the shapes of a model, tens of megabytes, goes with it.
 */
function* gridCases(numCases: number): Generator<Asked> {
  for (let i = 0; i < numCases; i++) {
    const [name, counts] = MODELS[i % MODELS.length] as (typeof MODELS)[number];
    const seqLen = LENGTHS[(i * 3) % LENGTHS.length] as string;
    const gpu = GPUS[Math.floor(i / 5) % GPUS.length] as string;
    const gpus = counts[Math.floor(i / 8) % counts.length] as number;
    const { deepspeed, ...specs } = parseSpecs({
      model: modelConfig(name, MOST_TOKENS),
      cluster: { gpus, gpu },
      run: { seqLen },
      deepspeed: { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } },
    });
    yield { name: `${name}, ${seqLen} on ${gpus} x ${gpu}`, seqLen, input: { ...specs, deepspeed: deepspeed.config } };
  }
}

/** Undefined where nothing fits. */
function judge({ name, seqLen, input }: Asked, seed: number, draws: number): GridCase | undefined {
  const setting = settingOf(input);
  const evaluate = estimator();
  const { strategy, memory } = findStrategy(input, evaluate);
  if (!memory.fits) return undefined;
  const near = oneKnobAway(setting, strategy)
    .map((knob) => knob.strategy)
    .filter((one) => evaluate.memory(setting, one).fits);
  const others = [...near, ...drawStrategies(setting, evaluate, mulberry32(seed), draws)];
  const fastest = fastestOf(others, setting, evaluate);
  const ratio = fastest === undefined ? 1 : simulated(setting, strategy) / simulated(setting, fastest);
  const atMost = parseTokens(seqLen) >= LONG_TOKENS ? AT_MOST.long : AT_MOST.short;
  return {
    name,
    ratio,
    atMost,
    numOthers: others.length,
    ...(ratio > atMost && fastest !== undefined ? { faster: fastest, chosen: strategy } : {}),
  };
}

/** What is soon known of hundreds of chunks is off by less, and what computing alone takes by much less (their tests hold them to it). */
const SOON_ERROR = 0.05;
const COMPUTING_ERROR = 0.002;

/** By estimate. Most compute longer than another takes in all: what they wait beside that, in millions of ops some of them, need not be known. */
function fastestOf(strategies: readonly Strategy[], setting: Setting, evaluate: Evaluator): Strategy | undefined {
  const computing = (one: Strategy): number => (1 - COMPUTING_ERROR) * evaluate.computeSeconds(setting, one);
  let [fastest, least]: [Strategy | undefined, number] = [undefined, Number.POSITIVE_INFINITY];
  for (const one of strategies.toSorted((a, b) => computing(a) - computing(b))) {
    if (computing(one) >= least) break;
    if ((1 - SOON_ERROR) * evaluate.secondsSoon(setting, one) >= least) continue;
    const seconds = evaluate.seconds(setting, one, least);
    if (seconds < least) [fastest, least] = [one, seconds];
  }
  return fastest;
}

function simulated(setting: Setting, strategy: Strategy): number {
  return predictRun({ ...setting, ...buildStrategy(setting, strategy).schedule }).stepSeconds;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      seed: { type: 'string' },
      draws: { type: 'string', default: '200' },
      cases: { type: 'string', default: String(NUM_CASES) },
    },
  });
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber('seed', values.seed);
  const draws = wholeNumber('draws', values.draws);
  const found: GridCase[] = [];
  const unplanned: string[] = [];
  for (const one of gridCases(wholeNumber('cases', values.cases, { most: NUM_CASES }))) {
    const judged = judge(one, seed, draws);
    if (judged === undefined) unplanned.push(one.name);
    else found.push(judged);
    if (!values.json) process.stdout.write(`${judged === undefined ? `does not fit: ${one.name}` : lineOf(judged)}\n`);
  }
  const missed = found.filter(({ ratio, atMost }) => ratio > atMost);
  const summary = {
    kind: 'gridBenchmark',
    seed,
    draws,
    worstRatio: Math.max(...found.map(({ ratio }) => ratio)),
    unplanned,
    cases: found,
  };
  if (values.json) process.stdout.write(`${JSON.stringify(summary, null, 1)}\n`);
  else process.stdout.write(`seed ${seed}: worst ${summary.worstRatio.toFixed(4)} of ${found.length} cases, ${missed.length} missed\n`);
  process.exitCode = missed.length === 0 ? 0 : 1;
}

function lineOf({ name, ratio, atMost, numOthers, chosen, faster }: GridCase): string {
  const both = faster === undefined ? '' : `: chose ${JSON.stringify(chosen)}, but ${JSON.stringify(faster)}`;
  return `${ratio <= atMost ? 'ok    ' : 'MISSED'} ${name}: ${ratio.toFixed(4)} of the fastest of ${numOthers}, at most ${atMost}${both}`;
}

await runScript(main);
