import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlanFile } from '../../src/plan/file.js';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { ALL_POLICIES } from '../../src/spec/releasedPrograms.js';
import { capture, DEMO } from './capture.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fpdt plan', () => {
  it('prints whether it fits, memory by pool and instant, strategy and step time', async () => {
    const { exitCode, stdout } = await capture('plan', ...DEMO);
    expect(exitCode).toBe(0);
    for (const text of [
      'Fits',
      'layerBackward',
      'HBM per rank',
      'Host memory per rank',
      'Strategy',
      'layers 0-1',
      'Program',
      'Host bound',
      'predicted',
    ])
      expect(stdout).toContain(text);
  });

  it('prints one JSON value with --json', async () => {
    const { stdout } = await capture('plan', ...DEMO, '--steps', '7', '--json');
    const plan = JSON.parse(stdout) as Record<string, unknown>;
    expect(plan).toMatchObject({ kind: 'planSummary', fits: true, run: { numSteps: 7, seqLen: 512 }, strategy: { numChunks: 4 } });
    expect(plan['digest']).toMatch(/^[0-9a-f]{64}$/);
    expect(plan['buffers']).toBeUndefined();
  });

  it('plans the same with a cluster file as with its words', async () => {
    const cluster = join(folder, 'cluster.json');
    writeFileSync(cluster, JSON.stringify({ gpus: 2, gpu: 'cpu' }));
    const words = await capture('plan', ...DEMO, '--json');
    const file = await capture(
      'plan',
      ...DEMO.filter((_, i) => i < 4),
      '--cluster',
      cluster,
      '--seq-len',
      '512',
      '--chunks',
      '4',
      '--json',
    );
    expect(file).toEqual(words);
  });

  it('keeps to the choices of a strategy file, to tiles, a kernel and a disk', async () => {
    const strategy = join(folder, 'strategy.json');
    const layers = [
      { layers: [0, 1], attentionOutput: 'host', keyValues: 'host' },
      { layers: [1, 2], attentionOutput: 'disk' },
    ];
    writeFileSync(strategy, JSON.stringify({ kvTileChunks: 2, layers }));
    const forced = [
      ...['--strategy', strategy, '--disk-bytes', '1G', '--token-tiles', '2'],
      ...['--attention', 'reference', '--kv-tile', '2'],
    ];
    const { exitCode, stdout } = await capture('plan', ...DEMO, ...forced, '--json');
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      strategy: { kvTileChunks: 2, numTokenTiles: 2, layers },
      kernels: { attn: 'reference', attnBwd: 'reference' },
      cluster: { diskBytes: 2 ** 30 },
      features: expect.arrayContaining(['layer-classes', 'file-pool', 'kv-tiles', 'tiles']) as string[],
      prediction: { copiedBytes: { read: expect.any(Number) as number, write: expect.any(Number) as number } },
    });
    const { stderr } = await capture('plan', ...DEMO, ...forced, '--kv-tile', '4');
    expect(stderr).toMatch(/run\.kvTileChunks is 4 but strategy\.kvTileChunks is 2/);
  });

  it.each([
    [['--gpu', 'cpu'], /the ranks are not given/],
    [['--gpus', '2', '--cluster', 'c.json'], /--gpus cannot be given as well/],
    [['--disk-bytes', '1G', '--cluster', 'c.json'], /--disk-bytes cannot be given as well/],
    [['--gpus', 'two'], /Expected a whole number, found 'two'/],
    [['--policy', 'fptd'], new RegExp(`Allowed choices are ${ALL_POLICIES.join(', ')}`)],
    [['--chunk', '4'], /unknown option '--chunk'\n.*Did you mean --chunks\?/],
  ])('refuses %j as wrong usage', async (args, message) => {
    const { exitCode, stderr } = await capture('plan', '--model', 'examples/demo/model/config.json', '--seq-len', '512', ...args);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('says what was wrong with a spec, with a hint, also as JSON', async () => {
    const { exitCode, stdout, stderr } = await capture(
      'plan',
      ...DEMO.slice(0, 4),
      '--gpus',
      '2',
      '--gpu',
      'a100-80gbs',
      '--seq-len',
      '512',
      '--json',
    );
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/error: .*a100-80gbs/);
    expect(stderr).toMatch(/hint: .*a100-80gb/);
    expect(JSON.parse(stdout)).toMatchObject({ error: { hint: expect.stringContaining('a100-80gb') as string } });
  });

  it('names the line and the nearest key of a misspelt ds_config', async () => {
    const config = join(folder, 'ds.json');
    writeFileSync(config, '{\n "train_micro_batch_size_per_gpu": 1, // one\n "zero_optimization": {"stge": 3}\n}');
    const { exitCode, stderr } = await capture('plan', ...DEMO, '--deepspeed', config);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/zero_optimization\.stge \(line 3\)[\s\S]*hint: did you mean 'stage'/);
  });

  it('says by how much a plan does not fit, and what would', async () => {
    const { exitCode, stderr } = await capture('plan', ...DEMO, '--hbm-bytes', '8M');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/hint: /);
    expect(stderr).toMatch(/MiB/);
  });

  it('plans the paper’s case from a shell without Python', () => {
    const args = [
      '--model',
      'examples/llama-3-8b.json',
      '--gpus',
      '4',
      '--gpu',
      'a100-80gb',
      '--seq-len',
      '2M',
      '--policy',
      'fpdt',
      '--json',
    ];
    const environment = { PATH: join(folder, 'nothing'), FPDT_PYTHON: join(folder, 'no-python') };
    const { status, stdout } = spawnSync(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', 'plan', ...args], {
      env: environment,
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      fits: true,
      run: { seqLen: 2 ** 21, policy: 'fpdt' },
      strategy: { layers: [{ layers: [0, 32], keyValues: 'host' }] },
    });
  });
});

describe('fpdt plan --require', () => {
  it('exits with 3 where a requirement is not met, and prints each with its value', async () => {
    const output = join(folder, 'required.json');
    const { exitCode, stdout } = await capture('plan', ...DEMO, '--require', 'stepSeconds<1us, hbm<1G', '--output', output);
    expect(exitCode).toBe(3);
    expect(stdout).toMatch(/\nRequire {5}NOT MET {2}stepSeconds<1us {2}\S+ m?s\nRequire {5}met {6}hbm<1G +\S+ MiB$/);
    expect((await readPlanFile(output)).run.seqLen).toBe(512);
  });

  it('exits with 0 where all are met, with prices too', async () => {
    const { exitCode, stdout } = await capture('plan', ...DEMO, '--price', '2', '--require', 'stepSeconds<1h,usdPerStep<1', '--json');
    expect(exitCode).toBe(0);
    const { cost, requirements } = OUTPUT_SCHEMAS.planSummary.parse(JSON.parse(stdout));
    expect(cost).toMatchObject({ usdPerGpuHour: 2, usdPerStep: 2 * cost.gpuHoursPerStep });
    expect(requirements).toMatchObject([{ met: true }, { met: true, value: cost.usdPerStep }]);
  });

  it('explains the choice, as text and as JSON by its schema', async () => {
    const text = await capture('plan', ...DEMO, '--explain');
    expect(text.stdout).toMatch(/\nWhy {9}.* a step estimated/);
    expect(text.stdout).toMatch(/\nNext best {3}\w/);
    const { stdout } = await capture('plan', ...DEMO, '--explain', '--json');
    const { choice } = OUTPUT_SCHEMAS.planSummary.parse(JSON.parse(stdout));
    expect(choice?.knobs.length).toBeGreaterThan(5);
    for (const other of ['--compare', '--policy=upipe']) {
      const { exitCode, stderr } = await capture('plan', ...DEMO, '--explain', other);
      expect(exitCode).toBe(2);
      expect(stderr).toMatch(/--explain is/);
    }
  });

  it.each([
    [['--require', 'stepSecond<60'], 1, /nothing of a plan is called 'stepSecond'\nhint: did you mean 'stepSeconds'\?/],
    [['--require', 'usdPerStep<60'], 1, /takes the price of a GPU-hour\nhint: .*--price/],
    [['--require', 'hbm<1G', '--hbm-bytes', '8M'], 1, /HBM does not fit/],
    [['--price', '-2'], 2, /Expected a number above 0, found '-2'/],
    [['--price', 'NaN'], 2, /Expected a number above 0, found 'NaN'/],
  ])('refuses %j', async (args, code, message) => {
    const { exitCode, stderr } = await capture('plan', ...DEMO, ...args);
    expect(exitCode).toBe(code);
    expect(stderr).toMatch(message);
  });
});

describe('fpdt plan --compare', () => {
  it('prints a row for every policy', async () => {
    const { exitCode, stdout } = await capture('plan', ...DEMO, '--hbm-bytes', '40M', '--host-bytes', '16M', '--compare');
    expect(exitCode).toBe(0);
    for (const policy of ALL_POLICIES) expect(stdout).toMatch(new RegExp(`^${policy}( \\(plan-only\\))? +(yes|no) `, 'm'));
  });

  it('prints JSON by its schema', async () => {
    const { stdout } = await capture('plan', ...DEMO, '--hbm-bytes', '40M', '--host-bytes', '16M', '--compare', '--json', '--price', '1');
    const { policies } = OUTPUT_SCHEMAS.policyComparison.parse(JSON.parse(stdout));
    expect(policies.map(({ policy }) => policy)).toEqual(ALL_POLICIES);
  });

  it.each(['--output=x.json', '--require=hbm<1G', '--policy=fpdt', '--released=tiledMlp=off'])('refuses %s', async (option) => {
    const { exitCode, stderr } = await capture('plan', ...DEMO, '--compare', option);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/--compare plans with every policy; --\w+ is for one plan/);
  });
});
