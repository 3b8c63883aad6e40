import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { capture } from './capture.js';

const REQUEST = ['--model', 'examples/llama-3-8b.json', '--gpus', '8', '--gpu', 'h100-80gb', '--policy', 'alst-released'];

describe('fpdt plan with a plan-only policy', () => {
  it('prints time by terms, memory by instants, MFU, and that it cannot be run', async () => {
    const { exitCode, stdout } = await capture('plan', ...REQUEST, '--seq-len', '1M', '--price', '2');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^Fits {8}yes: HBM \d+% full at layerBackward, host memory \d+% full\nPlan-only {3}alst-released, /);
    expect(stdout).toMatch(/\n {2}attention backward +\S+ s +\S+% {2}flash2\n/);
    expect(stdout).toMatch(/\nMFU .* causal model FLOPs; /);
    expect(stdout).toMatch(/; at \$2 each/);
  });

  it('prints JSON by its schema, and exits with 1 where it does not fit', async () => {
    const { exitCode, stdout } = await capture('plan', ...REQUEST, '--seq-len', '16M', '--released', 'tiledMlp=off', '--json');
    expect(exitCode).toBe(1);
    expect(OUTPUT_SCHEMAS.releasedPlan.parse(JSON.parse(stdout))).toMatchObject({ fits: false, options: { tiledMlp: false } });
  });

  it.each([
    [['--output', 'x.json'], /--output: alst-released is plan-only, .*\nhint: use --policy \w+, which runs/],
    [['--require', 'hbm<1G'], /--require: alst-released is plan-only/],
    [['--released', 'tiledMLP=off'], /unknown key 'tiledMLP'\nhint: did you mean 'tiledMlp'\?/],
  ])('refuses %j', async (args, message) => {
    const { exitCode, stderr } = await capture('plan', ...REQUEST, '--seq-len', '1M', ...args);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(message);
  });

  it.each(['min-gpus', 'min-host'])('is nothing that fpdt %s takes', async (verb) => {
    const gpus = verb === 'min-gpus' ? [] : ['--gpus', '4'];
    const { exitCode, stderr } = await capture(
      verb,
      '--model',
      'examples/llama-3-8b.json',
      '--gpu',
      'a100-80gb',
      ...gpus,
      '--seq-len',
      '1M',
      '--policy',
      'upipe',
    );
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(
      /^error: policy upipe is plan-only, a model of a released program without a schedule that could run\nhint: use --policy auto/,
    );
  });

  it('is nothing that fpdt run takes', async () => {
    const { stdout } = await capture('plan', ...REQUEST, '--seq-len', '1M', '--json');
    const path = join(mkdtempSync(join(tmpdir(), 'fpdt-released-')), 'plan.json');
    writeFileSync(path, stdout);
    const { exitCode, stderr } = await capture('run', path, '--data', path);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/is no plan file: alst-released is plan-only.*\nhint: use --policy/);
  });
});

describe('fpdt max-seq with a plan-only policy', () => {
  it('prints the longest sequence, as text and as JSON by its schema', async () => {
    const { exitCode, stdout } = await capture('max-seq', ...REQUEST);
    expect(exitCode).toBe(0);
    const [, longest = ''] = /^Longest {5}(\d+) tokens fit \(multiples of \d+ were looked at\)\nBound /.exec(stdout) ?? [];
    expect(stdout).toContain(`Sequence    ${longest} tokens`);
    const printed = OUTPUT_SCHEMAS.maxReleasedSeqLen.parse(JSON.parse((await capture('max-seq', ...REQUEST, '--json')).stdout));
    expect(printed.seqLen).toBe(Number(longest));
  });
});
