/** The command line and the API have the same defaults, and the same words mean the same to both. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, describe, expect, it } from 'vitest';
import { withRequest } from '../../src/cli/requestOptions.js';
import { maxReleasedSeqLen, maxSeqLen, minGpus, minHost, type PlanInput, planReleased, planRun } from '../../src/index.js';
import { planToJson } from '../../src/report/planJson.js';
import { limitToJson } from '../../src/report/limitText.js';
import type { RunInput } from '../../src/spec/runInput.js';
import { capture } from './capture.js';

const MODEL = 'examples/demo/model/config.json';
const A100S = { gpus: 2, gpu: 'a100-80gb' };

const folder = mkdtempSync(join(tmpdir(), 'fpdt-agrees-'));
afterAll(() => rmSync(folder, { recursive: true }));
const STRATEGY = jsonFile('strategy', { numChunks: 2 });
const LORA = jsonFile('lora', { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj'] });
const CLUSTER = jsonFile('cluster', { gpus: 4, gpu: 'h100-80gb' });

function jsonFile(name: string, value: object): string {
  const path = join(folder, `${name}.json`);
  writeFileSync(path, JSON.stringify(value));
  return path;
}

/** Words of the API beside or in place of the request's own. */
interface Words {
  readonly run?: Omit<Partial<RunInput>, 'policy'> & { readonly policy?: string };
  readonly cluster?: object | string;
  readonly deepspeed?: string;
}

function request({ run, cluster, deepspeed }: Words): PlanInput {
  return {
    model: MODEL,
    cluster: typeof cluster === 'string' ? cluster : { ...A100S, ...cluster },
    run: { seqLen: 512, ...run } as RunInput,
    ...(deepspeed === undefined ? {} : { deepspeed }),
  };
}

async function printed(command: string, ...args: readonly string[]): Promise<Record<string, unknown>> {
  const { exitCode, stdout } = await capture(command, '--model', MODEL, ...args, '--json');
  expect({ exitCode, error: exitCode === 0 ? '' : stdout }).toEqual({ exitCode: 0, error: '' });
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** As JSON has it. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

const LENGTH = ['--seq-len', '512'];
const GPUS = ['--gpus', '2', '--gpu', 'a100-80gb'];

/** Each option with a value that is not its default, and what the API calls that. */
const OPTIONS: Readonly<Record<string, readonly [readonly string[], Words]>> = {
  seqLen: [['--seq-len', '1K'], { run: { seqLen: 1024 } }],
  gpus: [['--gpus', '4'], { cluster: { gpus: 4 } }],
  gpu: [['--gpu', 'h100-80gb'], { cluster: { gpu: 'h100-80gb' } }],
  ranksPerNode: [['--ranks-per-node', '1'], { cluster: { ranksPerNode: 1 } }],
  hbmBytes: [['--hbm-bytes', '40G'], { cluster: { hbmBytes: '40G' } }],
  hostBytes: [['--host-bytes', '20G'], { cluster: { hostBytes: '20G' } }],
  diskBytes: [['--disk-bytes', '100G'], { cluster: { diskBytes: '100G' } }],
  cluster: [['--cluster', CLUSTER], { cluster: CLUSTER }],
  deepspeed: [['--deepspeed', 'examples/demo/ds_config.json'], { deepspeed: 'examples/demo/ds_config.json' }],
  policy: [['--policy', 'fpdt'], { run: { policy: 'fpdt' } }],
  sequenceParallel: [['--sequence-parallel', '1'], { run: { sequenceParallelSize: 1 } }],
  dataParallel: [['--data-parallel', '2'], { run: { dataParallelSize: 2 } }],
  chunks: [['--chunks', '4'], { run: { numChunks: 4 } }],
  segmentLayers: [['--segment-layers', '2'], { run: { segmentLayers: 2 } }],
  kvTile: [['--policy', 'fpdt', '--chunks', '4', '--kv-tile', '2'], { run: { policy: 'fpdt', numChunks: 4, kvTileChunks: 2 } }],
  lossTiles: [['--loss-tiles', '2'], { run: { numLossTiles: 2 } }],
  tokenTiles: [['--token-tiles', '2'], { run: { numTokenTiles: 2 } }],
  headGroups: [['--sequence-parallel', '1', '--head-groups', '2'], { run: { sequenceParallelSize: 1, headGroups: 2 } }],
  prefetchDepth: [['--policy', 'fpdt', '--prefetch-depth', '3'], { run: { policy: 'fpdt', prefetchDepth: 3 } }],
  hbmReserve: [['--hbm-reserve', '10%'], { run: { hbmReserve: 0.1 } }],
  strategy: [['--strategy', STRATEGY], { run: { strategy: STRATEGY } }],
  attention: [['--attention', 'reference'], { run: { attention: 'reference' } }],
  kernels: [['--kernels', 'norm=plain'], { run: { kernels: { norm: 'plain' } } }],
  dtype: [['--dtype', 'float32'], { run: { dtype: 'float32' } }],
  ropeTheta: [['--rope-theta', '5e6'], { run: { ropeTheta: 5e6 } }],
  ropeScaling: [['--rope-scaling', 'yarn:8'], { run: { ropeScaling: 'yarn:8' } }],
  freeze: [['--freeze', 'model.layers.0.*'], { run: { freeze: ['model.layers.0.*'] } }],
  lora: [['--lora', LORA], { run: { lora: LORA } }],
  packing: [['--packing'], { run: { packing: true } }],
  steps: [['--steps', '7'], { run: { numSteps: 7 } }],
  seed: [['--seed', '3'], { run: { seed: 3 } }],
  evaluate: [['--evaluate'], { run: { evaluate: true } }],
};

/** Of plan-only policies, and of what is printed. */
const ELSEWHERE = ['released', 'price', 'json'];

describe('fpdt plan and planRun', () => {
  it.each(Object.entries({ none: [[], {}] as const, ...OPTIONS }))('agree with option %s', async (name, [args, words]) => {
    const given = new Set<string>(args);
    const own = [LENGTH, GPUS.slice(0, 2), GPUS.slice(2)].filter(
      ([flag = '']) => !given.has(flag) && !(name === 'cluster' && flag.startsWith('--gpu')),
    );
    const plan = await planRun(request(words));
    expect(await printed('plan', ...own.flat(), ...args)).toEqual(plain(planToJson(plan)));
  });

  it('have had every option looked at', () => {
    const options = withRequest(new Command()).options.map((option) => option.attributeName());
    expect(new Set([...Object.keys(OPTIONS), ...ELSEWHERE, 'model'])).toEqual(new Set(options));
  });

  it('shard weights, gradients and optimizer where there is no ds_config, and as DeepSpeed does where it is empty', async () => {
    expect((await planRun(request({}))).run).toMatchObject({ zeroStage: 3, dtype: 'bfloat16' });
    expect((await planRun({ ...request({}), deepspeed: {} })).run).toMatchObject({ zeroStage: 0, dtype: 'float32' });
  });
});

/** So small that the ends of what fits are near. */
const TINY = { gpus: 2, gpu: 'cpu', hbmBytes: '2100M' };
const TINY_FLAGS = ['--gpus', '2', '--gpu', 'cpu', '--hbm-bytes', '2100M'];

describe('the other commands and their functions', () => {
  const { run, ...open } = request({ cluster: TINY });

  it('agree on limits', async () => {
    expect(await printed('max-seq', ...TINY_FLAGS, '--policy', 'ulysses')).toEqual(
      plain(limitToJson(await maxSeqLen({ ...open, run: { policy: 'ulysses' } }))),
    );
    const anyNumber = { ...open, run, cluster: { gpu: 'a100-80gb' } };
    expect(await printed('min-gpus', '--gpu', 'a100-80gb', ...LENGTH)).toEqual(plain(limitToJson(await minGpus(anyNumber))));
    expect(await printed('min-host', ...GPUS, ...LENGTH)).toEqual(plain(limitToJson(await minHost(request({})))));
  });

  it('agree on released programs', async () => {
    const released = ['--policy', 'alst-released', '--released', 'tiledMlp=off'];
    const program = { policy: 'alst-released', released: 'tiledMlp=off' } as const;
    expect(await printed('plan', ...GPUS, ...LENGTH, ...released)).toEqual(plain(planReleased(request({ run: program }))));
    expect(await printed('max-seq', ...GPUS, ...released)).toEqual(plain(maxReleasedSeqLen({ ...request({}), run: program })));
  });
});
