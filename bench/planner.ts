/**
 * `npm run bench:planner -- [--json]`: sizes and times of planning, against their targets. CPU seconds are those of the whole
 * `fpdt plan` process (user + system, median of NUM_RUNS), so a machine that is busy with other things changes them little.
 * Fails when a target is missed.
 */
import { join } from 'node:path';
import { execa } from 'execa';
import { parseOptions, runScript } from '../scripts/options.js';
import { type ExecutionPlan, FpdtError, encodePlan, planRun } from '../src/index.js';
import { parseSpecs } from '../src/catalog/specs.js';
import { nativeReplays } from '../src/machine/replays.js';
import { BUILD_HINT } from '../src/native.js';
import { PACKAGE_ROOT } from '../src/package.js';
import { median } from '../src/report/compare.js';
import { estimateTime } from '../src/strategy/estimateTime.js';
import { estimator } from '../src/strategy/evaluator.js';
import { type BuildInput, settingOf } from '../src/strategy/setting.js';
import { findStrategy } from '../src/strategy/findStrategy.js';
import { comparePublished, MOST_ERROR, MOST_MEAN_ERROR, type Published } from './publishedRows.js';
import { replayTimes } from './replay.js';

const MODEL = join(PACKAGE_ROOT, 'examples', 'llama-3-8b.json');
const COMMAND = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');
const DEEPSPEED = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } };
const NUM_RUNS = 5;
/** Until the code is warm: as often as V8 goes on compiling it better. */
const NUM_WARM = 25;
const MEGABYTE = 1e6;

interface Measure {
  readonly name: string;
  readonly value: number;
  /** Largest value that is good; absent: for information. */
  readonly atMost?: number;
  readonly unit: string;
}

type Run = Parameters<typeof planRun>[0]['run'];

function plan(gpus: number, gpu: string, run: Run, hostBytes?: string): Promise<ExecutionPlan> {
  const cluster = { gpus, gpu, ...(hostBytes === undefined ? {} : { hostBytes }) };
  return planRun({ model: MODEL, cluster, run, deepspeed: DEEPSPEED });
}

function numOps({ sections }: ExecutionPlan): number {
  return sections.reduce((sum, { ops }) => sum + ops.length, 0);
}

/** As it travels: header, prose and compressed columns. */
function bytesOf(made: ExecutionPlan): number {
  const { header, prose, columns } = encodePlan(made);
  return header.length + prose.length + columns.reduce((sum, { data }) => sum + data.length, 0);
}

/** Ops and bytes of one 2M-token plan by the length of its segments: they may not grow from two layers on. */
async function segments(): Promise<readonly Measure[]> {
  const sizes = await Promise.all(
    [1, 2, 4, 8].map(async (segmentLayers) => {
      const made = await plan(4, 'a100-80gb', { seqLen: '2M', policy: 'fpdt', segmentLayers });
      return { segmentLayers, ops: numOps(made), columns: encodePlan(made).columns.reduce((sum, { length }) => sum + length, 0) };
    }),
  );
  const [, two] = sizes;
  return sizes.flatMap(({ segmentLayers, ops, columns }): readonly Measure[] => [
    { name: `ops, segments of ${segmentLayers}`, value: ops, unit: 'ops', ...(segmentLayers > 2 ? { atMost: two?.ops ?? 0 } : {}) },
    {
      name: `column elements, segments of ${segmentLayers}`,
      value: columns,
      unit: 'elements',
      ...(segmentLayers > 2 ? { atMost: two?.columns ?? 0 } : {}),
    },
  ]);
}

/** m ranges of layers with placements of their own cost at most m + 1 times the ops of the largest alone. */
async function ranges(): Promise<readonly Measure[]> {
  const choices = [
    { keyValues: 'hbm', attentionOutput: 'host', checkpoints: 'host' },
    { keyValues: 'host', attentionOutput: 'recompute', checkpoints: 'host' },
    { keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'hbm' },
    { keyValues: 'host', attentionOutput: 'host', checkpoints: 'hbm' },
  ];
  const made = (chosen: typeof choices): Promise<ExecutionPlan> => {
    const width = 32 / chosen.length;
    const layers = chosen.map((choice, i) => ({ layers: [i * width, (i + 1) * width], ...choice }));
    return plan(8, 'h100-80gb', { seqLen: '256K', numChunks: 16, strategy: { layers } });
  };
  const alone = await Promise.all(choices.map(async (choice) => numOps(await made([choice]))));
  const measures = [1, 2, 4].map(async (m): Promise<Measure> => {
    const ops = numOps(await made(choices.slice(0, m)));
    return { name: `ops of ${m} ranges`, value: ops, atMost: (m + 1) * Math.max(...alone.slice(0, m)), unit: 'ops' };
  });
  return Promise.all(measures);
}

const FIFTEEN_MILLION = { seqLen: '15M', policy: 'fpdt', segmentLayers: 4, sequenceParallelSize: 8 } as const;

async function fifteenMillion(): Promise<readonly Measure[]> {
  const made = await plan(1024, 'h100-80gb', FIFTEEN_MILLION, '480G');
  return [
    { name: '15M tokens on 1024 GPUs, fpdt, segments of 4', value: numOps(made), atMost: 500_000, unit: 'ops' },
    { name: '15M tokens on 1024 GPUs, fpdt, segments of 4', value: bytesOf(made) / MEGABYTE, atMost: 15, unit: 'MB' },
    ...replays(made),
  ];
}

/** Native replay takes at most a third of what its twin takes. */
function replays(made: ExecutionPlan): readonly Measure[] {
  const { twinMs, nativeMs } = replayTimes(made, nativeReplays.leastOps);
  if (nativeMs === null) throw new Error(`there is no native addon to measure: ${BUILD_HINT}`);
  return [
    { name: 'replay of its calls in TypeScript', value: twinMs, unit: 'ms of CPU' },
    { name: 'replay of its calls in native code', value: nativeMs, atMost: twinMs / 3, unit: 'ms of CPU' },
  ];
}

/** Best of some calls of planRun, once the code is warm: choice, build, verification and all. */
async function planning(): Promise<readonly Measure[]> {
  const cases = [
    { name: '4M tokens, 32 H100s', gpus: 32, seqLen: '4M', atMost: 150 },
    { name: '15M tokens, 64 H100s', gpus: 64, seqLen: '15M', hostBytes: '480G', atMost: 2000 },
    { name: '15M tokens, 1024 H100s', gpus: 1024, seqLen: '15M', hostBytes: '480G', atMost: 2000 },
  ];
  const measures: Measure[] = [];
  for (const { name, gpus, seqLen, hostBytes, atMost } of cases) {
    const times: number[] = [];
    for (let i = 0; i < NUM_RUNS; i++) {
      const before = process.cpuUsage();
      await plan(gpus, 'h100-80gb', { seqLen }, hostBytes);
      const { user, system } = process.cpuUsage(before);
      times.push((user + system) / 1000);
    }
    measures.push({ name: `planning: ${name}`, value: Math.min(...times), atMost, unit: 'ms of CPU' });
  }
  return measures;
}

/** More than 2M ops are refused with the tile that mends it, and with that tile there is a plan. */
async function tooLarge(): Promise<readonly Measure[]> {
  const run = { ...FIFTEEN_MILLION, numChunks: 1024 } as const;
  try {
    await plan(1024, 'h100-80gb', run, '480G');
  } catch (error) {
    const tile =
      error instanceof FpdtError && error.code === 'plan-too-large' ? /kvTileChunks=(\d+)/.exec(error.hint ?? '')?.[1] : undefined;
    if (tile === undefined) throw error;
    const made = await plan(1024, 'h100-80gb', { ...run, kvTileChunks: Number(tile) }, '480G');
    return [
      { name: `1024 chunks with the tile of ${tile} chunks that the refusal names`, value: numOps(made), atMost: 2_000_000, unit: 'ops' },
    ];
  }
  throw new Error('a plan of more than 2M ops was not refused');
}

/** Of a command that ends with this exit code. Throws what it said where it ends otherwise. */
async function cpuSeconds(args: readonly string[], code = 0): Promise<number> {
  const seconds: number[] = [];
  for (let i = 0; i < NUM_RUNS; i++) {
    const script = 'TIMEFORMAT="%U %S"; time "$0" "$@" >/dev/null';
    const command = ['-c', script, process.execPath, COMMAND, 'plan', '--model', MODEL, ...args];
    const { stderr, exitCode } = await execa('bash', command, { reject: false });
    if (exitCode !== code) throw new Error(`fpdt plan ${args.join(' ')} ended with ${exitCode}: ${stderr}`);
    const [user = Number.NaN, system = Number.NaN] = stderr.trim().split('\n').at(-1)?.split(' ').map(Number) ?? [];
    seconds.push(user + system);
  }
  return median(seconds);
}

async function times(): Promise<readonly Measure[]> {
  const short = await cpuSeconds(['--gpus', '4', '--gpu', 'a100-80gb', '--seq-len', '2M', '--policy', 'fpdt']);
  const auto = await cpuSeconds(['--gpus', '4', '--gpu', 'a100-80gb', '--seq-len', '2M']);
  const misfits: readonly (readonly [string, readonly string[]])[] = [
    ['8K tokens, one H100', ['--gpus', '1', '--gpu', 'h100-80gb', '--seq-len', '8K']],
    ['4M tokens, one A100', ['--gpus', '1', '--gpu', 'a100-80gb', '--seq-len', '4M']],
    ['64M tokens, 4 H100s', ['--gpus', '4', '--gpu', 'h100-80gb', '--seq-len', '64M']],
  ];
  const explained: Measure[] = [];
  for (const [name, args] of misfits) {
    explained.push({ name: `a misfit explained: ${name}`, value: await cpuSeconds(args, 1), atMost: 1, unit: 's of CPU' });
  }
  const long = ['--gpus', '1024', '--gpu', 'h100-80gb', '--seq-len', '15M', '--policy', 'fpdt', '--segment-layers', '4'];
  return [
    { name: 'fpdt plan: 2M tokens, 4 GPUs, fpdt', value: short, atMost: 0.7, unit: 's of CPU' },
    { name: 'fpdt plan: 2M tokens, 4 GPUs, auto', value: auto, atMost: 0.7, unit: 's of CPU' },
    {
      name: 'fpdt plan: 15M tokens, 1024 GPUs, fpdt, segments of 4',
      value: await cpuSeconds([...long, '--host-bytes', '480G', '--sequence-parallel', '8']),
      atMost: 10,
      unit: 's of CPU',
    },
    ...explained,
  ];
}

const CHOICES = [
  { name: '2M tokens, 4 A100s', gpus: 4, gpu: 'a100-80gb', seqLen: '2M' },
  { name: '4M tokens, 8 H100s', gpus: 8, gpu: 'h100-80gb', seqLen: '4M' },
  { name: '4M tokens, 32 H100s', gpus: 32, gpu: 'h100-80gb', seqLen: '4M', atMost: 50 },
  { name: '15M tokens, 64 H100s', gpus: 64, gpu: 'h100-80gb', seqLen: '15M', hostBytes: '480G', atMost: 200 },
  { name: '15M tokens, 1024 H100s', gpus: 1024, gpu: 'h100-80gb', seqLen: '15M', hostBytes: '480G', atMost: 200 },
];
/** Checkpoint of every layer, outputs recomputed: what a solver without a clock took. */
const RECOMPUTED = { layers: [{ layers: [0, 32], keyValues: 'hbm', attentionOutput: 'recompute', checkpoints: 'host', segments: 1 }] };

/** Milliseconds of CPU to choose, the best of some once the code is warm, and how much faster the choice is than recomputing every output. */
function choices(): readonly Measure[] {
  return CHOICES.flatMap(({ name, seqLen, atMost, ...cluster }): readonly Measure[] => {
    const inputOf = (run: Run): BuildInput => {
      const { deepspeed, ...specs } = parseSpecs({ model: MODEL, cluster, run, deepspeed: DEEPSPEED });
      return { ...specs, deepspeed: deepspeed.config };
    };
    const input = inputOf({ seqLen });
    const seconds = (one: BuildInput): number => {
      const { strategy, memory } = findStrategy(one, estimator());
      return memory.fits ? estimateTime(settingOf(one), strategy) : Number.POSITIVE_INFINITY;
    };
    for (let warm = 0; warm < NUM_WARM; warm++) findStrategy(inputOf({ seqLen }), estimator());
    const times = Array.from({ length: NUM_RUNS }, () => {
      // Of a model that nothing is known of, as in a process that chooses once.
      const fresh = inputOf({ seqLen });
      const before = process.cpuUsage();
      findStrategy(fresh, estimator());
      const { user, system } = process.cpuUsage(before);
      return (user + system) / 1000;
    });
    const alone = seconds(inputOf({ seqLen, strategy: RECOMPUTED }));
    return [
      { name: `choosing: ${name}`, value: Math.min(...times), unit: 'ms of CPU', ...(atMost === undefined ? {} : { atMost }) },
      ...(Number.isFinite(alone)
        ? [{ name: `auto / outputs recomputed: ${name}`, value: seconds(input) / alone, atMost: 0.8, unit: 'of its time' }]
        : []),
    ];
  });
}

/** Released programs against what was published of them: `npm run bench:published` prints the rows. */
function publishedMeasures({ meanError, worstError, numWrongFits }: Published): readonly Measure[] {
  return [
    { name: 'published rows: step time, mean error', value: meanError, atMost: MOST_MEAN_ERROR, unit: 'of the time' },
    { name: 'published rows: step time, worst error', value: worstError, atMost: MOST_ERROR, unit: 'of the time' },
    { name: 'published rows: maxima that do not fit, or fit twice as long', value: numWrongFits, atMost: 0, unit: 'rows' },
  ];
}

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { json: { type: 'boolean', default: false } } });
  const published = comparePublished();
  const measures = [
    ...(await segments()),
    ...(await ranges()),
    ...(await fifteenMillion()),
    ...(await tooLarge()),
    ...choices(),
    ...(await planning()),
    ...(await times()),
    ...publishedMeasures(published),
  ];
  const rows = measures.map((measure) => ({ ...measure, ok: measure.atMost === undefined || measure.value <= measure.atMost }));
  const failed = rows.filter(({ ok }) => !ok);
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'plannerBenchmark', measures: rows, published }, null, 1)}\n`);
  else for (const row of rows) process.stdout.write(`${lineOf(row)}\n`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}

function lineOf({ name, value, atMost, unit, ok }: Measure & { readonly ok: boolean }): string {
  const number = Number.isInteger(value) ? String(value) : value.toFixed(2);
  return `${ok ? 'ok    ' : 'MISSED'} ${name}: ${number} ${unit}${atMost === undefined ? '' : `, at most ${atMost}`}`;
}

await runScript(main);
