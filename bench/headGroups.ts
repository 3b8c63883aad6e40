/**
 * `npm run bench:heads -- [--only NAME] [--json]`: how much longer a sequence can be, and how much sooner a step of the longest is done, where
 * `auto` may attend to a rank's heads in groups, so that keys, values and their gradients are there of one group alone.
 * Fails where it is shorter, or takes longer.
 */
import { parseOptions, runScript } from '../scripts/options.js';
import { parseSpecs } from '../src/catalog/specs.js';
import { FpdtError } from '../src/index.js';
import { estimator, memoryEstimator } from '../src/strategy/evaluator.js';
import { withChunks } from '../src/spec/sizes.js';
import { findStrategy } from '../src/strategy/findStrategy.js';
import { longestSeqLen } from '../src/strategy/limits/maxSeqLen.js';
import { type BuildInput, settingOf } from '../src/strategy/setting.js';
import { type ModelName, modelConfig } from './models.js';

const OFFLOAD = { offload_optimizer: { device: 'cpu' } };
/** Model, GPUs, and its part of the ds_config. */
const CASES: readonly (readonly [ModelName, number, object])[] = [
  ['1B', 1, {}],
  ['3B', 1, OFFLOAD],
  ['3B', 4, OFFLOAD],
  ['8B', 4, OFFLOAD],
  ['7B', 4, OFFLOAD],
  ['7B', 8, OFFLOAD],
  ['13B', 8, OFFLOAD],
];
const GPU = 'h100-80gb';
const MOST_TOKENS = 2 ** 30;

interface HeadsCase {
  readonly name: string;
  /** Longest with all heads at once, and where they may be in groups. */
  readonly seqLen: number;
  readonly groupedSeqLen: number;
  /** Groups chosen for `seqLen` tokens, and the estimated seconds of a step of them over those with all heads at once. */
  readonly headGroups: number;
  readonly secondsRatio: number;
}

function judge([model, gpus, zero]: (typeof CASES)[number]): HeadsCase {
  const free = inputOf(model, gpus, zero);
  const whole = { ...free, run: { ...free.run, headGroups: 1 } };
  const longest = (input: BuildInput): number => longestSeqLen(input, memoryEstimator())?.seqLen ?? 0;
  const seqLen = longest(whole);
  if (seqLen === 0)
    throw new FpdtError(`no length of ${model} fits`, { code: 'does-not-fit', hint: 'change CASES of bench/headGroups.ts' });
  const [grouped, atOnce] = [free, whole].map((input) => chosen({ ...input, run: withChunks({ ...input.run, seqLen }, 1) }));
  return {
    name: `${model} on ${gpus} x ${GPU}`,
    seqLen,
    groupedSeqLen: longest(free),
    headGroups: grouped?.headGroups ?? 1,
    secondsRatio: (grouped?.seconds ?? 0) / (atOnce?.seconds ?? 0),
  };
}

function chosen(input: BuildInput): { readonly headGroups: number; readonly seconds: number } {
  const evaluate = estimator();
  const { strategy } = findStrategy(input, evaluate);
  return { headGroups: strategy.headGroups ?? 1, seconds: evaluate.seconds(settingOf(input), strategy) };
}

function inputOf(name: ModelName, gpus: number, zero: object): BuildInput {
  const { deepspeed, ...specs } = parseSpecs({
    model: modelConfig(name, MOST_TOKENS),
    cluster: { gpus, gpu: GPU },
    run: { seqLen: MOST_TOKENS },
    deepspeed: { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3, ...zero }, bf16: { enabled: true } },
  });
  return { ...specs, deepspeed: deepspeed.config };
}

function lineOf({ name, seqLen, groupedSeqLen, headGroups, secondsRatio }: HeadsCase): string {
  const longer = ((groupedSeqLen / seqLen - 1) * 100).toFixed(1);
  const longest = `${name}: ${seqLen} tokens at most with all heads at once, ${groupedSeqLen} in groups (${longer}% more)`;
  return `${longest}; at ${seqLen} it chooses ${headGroups}, which take ${secondsRatio.toFixed(3)} of the time`;
}

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { json: { type: 'boolean', default: false }, only: { type: 'string' } } });
  const { only } = values;
  const asked = CASES.filter(([name]) => only === undefined || name === only);
  if (asked.length === 0) {
    throw new FpdtError(`--only: no case has the model '${only ?? ''}'`, {
      code: 'usage',
      hint: `give one of ${[...new Set(CASES.map(([name]) => name))].join(', ')}`,
    });
  }
  const found: HeadsCase[] = [];
  for (const one of asked) {
    const judged = judge(one);
    found.push(judged);
    if (!values.json) process.stdout.write(`${lineOf(judged)}\n`);
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'headsBenchmark', cases: found }, null, 1)}\n`);
  process.exitCode = found.some(({ seqLen, groupedSeqLen, secondsRatio }) => groupedSeqLen < seqLen || secondsRatio > 1) ? 1 : 0;
}

await runScript(main);
