import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseCluster } from '../../src/catalog/clusters.js';
import { calibrateCommand } from '../../src/cli/calibrate.js';
import type { FactSources } from '../../src/native.js';
import { compileNvml, FILES, writeMachine } from '../native/fakeMachine.js';
import { capture, type Captured } from './capture.js';

const GIB = 1024 ** 3;

let folder: string;
/** Two GPUs of a board without NVLink and MIG. */
let sources: FactSources;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-calibrate-'));
  sources = writeMachine(folder, FILES, compileNvml(folder, 'NO_LINKS'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function onMachine(options: Readonly<Record<string, unknown>>): Promise<Omit<Captured, 'exitCode'>> {
  const [out, err]: [string[], string[]] = [[], []];
  await calibrateCommand({ facts: true, ...options }, { out: (text) => void out.push(text), err: (text) => void err.push(text) }, sources);
  return { stdout: out.join('\n'), stderr: err.join('\n') };
}

describe('fpdt calibrate --facts', () => {
  it('writes a cluster file that fpdt plan takes', async () => {
    const path = join(folder, 'cluster.json');
    const { stdout, stderr } = await onMachine({ output: path });
    expect(stdout).toBe('');
    expect(stderr).toContain('host: 19.2 GiB a rank, 80% of 48 GiB (the control group');
    expect(stderr).toContain(`wrote ${path}`);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      gpus: 2,
      gpu: 'a100-80gb',
      ranksPerNode: 2,
      hbmBytes: 85_899_345_920 - 650_000_000,
      hostBytes: Math.floor(0.4 * 48 * GIB),
    });
    const planned = await capture('plan', '--model', 'examples/demo/model', '--cluster', path, '--seq-len', '16K', '--json');
    const cluster = (JSON.parse(planned.stdout) as { readonly cluster: object }).cluster;
    expect(cluster).toMatchObject({ numRanks: 2, device: 'cuda' });
  });

  it('prints it where no file is named, with its sources as JSON', async () => {
    expect(JSON.parse((await onMachine({})).stdout)).toMatchObject({ gpus: 2, gpu: 'a100-80gb' });
    expect(JSON.parse((await onMachine({ json: true, ranks: 1 })).stdout)).toMatchObject({
      kind: 'factsCluster',
      cluster: { gpus: 1 },
      sources: [expect.stringContaining('1 of 2 GPUs') as string, expect.any(String) as string, expect.any(String) as string],
    });
  });

  it('says which file it cannot write', async () => {
    await expect(onMachine({ output: join(folder, 'none', 'cluster.json') })).rejects.toMatchObject({ code: 'file-unwritable' });
  });

  it('refuses options of the other way', async () => {
    const facts = await capture('calibrate', '--facts', '--model', 'config.json');
    expect(facts).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--model is no option of facts') as string });
    const measuring = await capture('calibrate', '--model', 'config.json', '--output', 'cluster.json', '--json');
    expect(measuring).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--json is no option of measuring') as string });
  });
});

describe('fpdt calibrate', () => {
  it('wants to know what to measure', async () => {
    expect(await capture('calibrate', '--ranks', '2')).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('--facts') as string });
  });

  it('says what it cannot read', async () => {
    const { exitCode, stderr } = await capture('calibrate', '--model', join(folder, 'none.json'), '--output', join(folder, 'c.json'));
    expect(exitCode).toBe(1);
    expect(stderr).toContain('none.json');
    const model = 'examples/demo/model';
    const disk = await capture('calibrate', '--model', model, '--output', join(folder, 'c.json'), '--disk-folder', join(folder, 'none'));
    expect(disk).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('as a disk') as string });
  });

  it('fails with Python, and leaves nothing behind', async () => {
    const [model, output] = ['examples/demo/model', join(folder, 'c.json')];
    const failed = await capture('calibrate', '--model', model, '--output', output, '--python', '/bin/false', '--chunk-tokens', '64');
    expect(failed).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('the calibration failed: exit code 1') as string });
    expect(existsSync(output)).toBe(false);
  });

  it.each([
    [['--ranks', '0'], 2, /Expected a whole number of at least 1, found '0'/],
    [['--chunk-tokens', '0'], 1, /--chunk-tokens: expected a whole number of tokens of at least 1, found "0"/],
    [['--compare', 'cluster.json', '--ranks', '2'], 2, /--ranks is no option of comparing\nhint: leave it out/],
    [['--chunk-tokens', '1G'], 1, /what is measured with does not fit: .*\nhint: .*(--chunk-tokens \d+ fits|smaller layers)/],
    [['--output', 'no-such-folder/c.json'], 1, /cannot write no-such-folder\/c\.json: no-such-folder is no folder\nhint: .*--output/],
    [['--output', 'examples'], 1, /cannot write the cluster file examples: it is a folder\nhint: .*--output/],
  ])('refuses %j before it measures anything', async (args, code, message) => {
    const asked = args.includes('--compare') ? [] : ['--model', 'examples/demo/model', '--output', join(folder, 'c.json')];
    const { exitCode, stderr } = await capture('calibrate', ...asked, '--python', '/bin/false', ...args);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(code);
  });

  it('compares with nothing but a calibration', async () => {
    const path = join(folder, 'made.json');
    writeFileSync(path, JSON.stringify(parseCluster({ gpus: 2, gpu: 'cpu' })));
    writeFileSync(join(folder, 'made.shapes.json'), '{}');
    const { exitCode, stderr } = await capture('calibrate', '--compare', path);
    expect(exitCode).toBe(1);
    expect(stderr).toContain('was not written by a calibration');
    rmSync(join(folder, 'made.shapes.json'));
    expect((await capture('calibrate', '--compare', path)).stderr).toMatch(/was not written by a calibration\nhint: write one/);
    writeFileSync(path, JSON.stringify({ ...parseCluster({ gpus: 2, gpu: 'cpu' }), ratesProvenance: 'measured' }));
    writeFileSync(join(folder, 'made.shapes.json'), JSON.stringify({ kind: 'calibrationShapes', ranks: 2, chunkTokens: '1K', model: {} }));
    const damaged = await capture('calibrate', '--compare', path);
    expect(damaged.stderr).toMatch(/calibration shapes\.chunkTokens: expected a number, found "1K"/);
  });
});
