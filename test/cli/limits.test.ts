import { describe, expect, it } from 'vitest';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { capture } from './capture.js';

const MODEL = ['--model', 'examples/demo/model/config.json', '--deepspeed', 'examples/demo/ds_config.json'];
const CLUSTER = ['--gpus', '2', '--gpu', 'cpu', '--hbm-bytes', '40M'];
const HOST = ['--host-bytes', '16M'];

describe('fpdt max-seq', () => {
  it('prints the longest sequence, what keeps it from a longer one, and its plan', async () => {
    const { exitCode, stdout } = await capture('max-seq', ...MODEL, ...CLUSTER, ...HOST, '--price', '2');
    expect(exitCode).toBe(0);
    const [, longest = ''] = /^Longest {5}(\d+) tokens fit \(multiples of \d+ were looked at\)\n/.exec(stdout) ?? [];
    expect(stdout).toMatch(/\nBound {7}\d+ tokens: \S.* does not fit: .*; largest: /);
    expect(stdout).toMatch(/\n\nFits {8}yes: /);
    expect(stdout).toContain(`Sequence    ${longest} tokens`);
    expect(stdout).toMatch(/Rank hours .*; at \$2 each/);
  });

  it('prints JSON by its schema', async () => {
    const { stdout } = await capture('max-seq', ...MODEL, ...CLUSTER, ...HOST, '--policy', 'fpdt', '--json');
    const printed = OUTPUT_SCHEMAS.maxSeqLen.parse(JSON.parse(stdout));
    expect(printed).toMatchObject({ kind: 'maxSeqLen', plan: { run: { seqLen: printed.seqLen, policy: 'fpdt' } } });
  });

  it('does not take a length', async () => {
    const { exitCode, stderr } = await capture('max-seq', ...MODEL, ...CLUSTER, '--seq-len', '512');
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/unknown option '--seq-len'/);
  });

  it('says what would help where nothing fits, also as JSON', async () => {
    const { exitCode, stdout, stderr } = await capture('max-seq', ...MODEL, '--gpus', '2', '--gpu', 'cpu', '--hbm-bytes', '2M', '--json');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/error: no length fits: HBM does not fit/);
    expect(OUTPUT_SCHEMAS.error.parse(JSON.parse(stdout)).error).toMatchObject({ code: 'does-not-fit' });
  });
});

describe('fpdt min-gpus', () => {
  const request = [...MODEL, '--gpu', 'cpu', '--hbm-bytes', '40M', '--seq-len', '16K'];

  it('prints the fewest GPUs, and what keeps it from fewer', async () => {
    const { exitCode, stdout } = await capture('min-gpus', ...request, ...HOST);
    expect(exitCode).toBe(0);
    const [, gpus = ''] =
      /^Fewest {6}(\d+) GPUs\nBound {7}\d+ GPUs, sequence parallel \d+ x data parallel \d+: \S.* does not fit: /.exec(stdout) ?? [];
    expect(stdout).toContain(`: ${gpus} ranks, `);
  });

  it('prints JSON by its schema', async () => {
    const { stdout } = await capture('min-gpus', ...request, ...HOST, '--json');
    const printed = OUTPUT_SCHEMAS.minGpus.parse(JSON.parse(stdout));
    expect(printed.plan.cluster.numRanks).toBe(printed.gpus);
  });

  it.each([
    [[...request, '--gpus', '2'], 2, /unknown option '--gpus'/],
    [request.filter((word) => !['--gpu', 'cpu'].includes(word)), 2, /the ranks are not given\nhint: give --gpu a100-80gb, or --cluster/],
    [[...request, '--sequence-parallel', '64'], 1, /more than the model's \d+ query heads\nhint: /],
    [[...request, '--max-gpus', '0'], 1, /maxGpus: expected a whole number of at least 1/],
    [[...request, '--hbm-bytes', '2M', '--max-gpus', '2'], 1, /not even 2 GPUs are enough.*\nhint: /],
  ])('refuses %j', async (args, code, message) => {
    const { exitCode, stderr } = await capture('min-gpus', ...args);
    expect(exitCode).toBe(code);
    expect(stderr).toMatch(message);
  });
});

describe('fpdt min-host', () => {
  const request = [...MODEL, ...CLUSTER, '--seq-len', '16K'];

  it('prints the least host memory, and what keeps it from less', async () => {
    const { exitCode, stdout } = await capture('min-host', ...request);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(
      /^Least {7}\S+ MiB of host memory a rank \(multiples of \S+ KiB were looked at\)\nBound {7}\S+ MiB: host memory does not fit: /,
    );
  });

  it('prints JSON by its schema, 0 where no host memory is needed', async () => {
    const { stdout } = await capture('min-host', ...request, '--json');
    const printed = OUTPUT_SCHEMAS.minHost.parse(JSON.parse(stdout));
    expect(printed.plan.cluster.hostBytes).toBe(printed.hostBytes);
    const roomy = await capture('min-host', ...MODEL, '--gpus', '2', '--gpu', 'cpu', '--seq-len', '512', '--json');
    expect(OUTPUT_SCHEMAS.minHost.parse(JSON.parse(roomy.stdout))).toMatchObject({ hostBytes: 0, less: null });
  });
});

/** A limit is looked for by memory alone; what is named as a change has its price in time all the same. */
describe('where nothing is enough', () => {
  const llama = ['--model', 'examples/llama-3-8b.json', '--gpu', 'a100-80gb', '--host-bytes', '240G'];

  it.each([
    ['min-gpus', [...llama, '--seq-len', '1M', '--max-gpus', '1'], /one GPU is not enough: /],
    ['min-host', [...llama.slice(0, 4), '--gpus', '1', '--seq-len', '1M'], /no host memory is enough: /],
    ['max-seq', [...llama, '--gpus', '1'], /no length fits: /],
  ])('fpdt %s names changes with prices', async (verb, args, message) => {
    const { exitCode, stderr } = await capture(verb, ...args);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(message);
    const seconds = [...stderr.matchAll(/at most ([\d.]+) (?:ms|s) a step, ([\d.e-]+) GPU-hours/g)].flatMap(([, ...numbers]) =>
      numbers.map(Number),
    );
    expect(seconds.length).toBeGreaterThan(0);
    for (const number of seconds) expect(number).toBeGreaterThan(0);
  });

  it('fpdt max-seq of a released program says what to change', async () => {
    const { exitCode, stderr } = await capture('max-seq', ...llama, '--gpus', '1', '--hbm-bytes', '1G', '--policy', 'upipe');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/no length fits: HBM does not fit: .*\nhint: take more GPUs/);
  });
});
