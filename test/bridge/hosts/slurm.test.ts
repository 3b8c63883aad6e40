/** Runs as jobs of Slurm, whose commands are stood in for: scripts are written and taken, agents find their place. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { hostsOf } from '../../../src/bridge/hosts/hostsOptions.js';
import { slurmScript } from '../../../src/bridge/hosts/slurm.js';
import { startRun } from '../../../src/bridge/run.js';
import { capture, DEMO } from '../../cli/capture.js';
import { collect, echoSetup, wirePlan } from '../echoRun.js';
import { makeFolder } from '../folder.js';
import { PATIENCE_MS } from '../patience.js';
import { AGENT, ENVIRONMENT } from './shell.js';

const BIN = fileURLToPath(new URL('slurm', import.meta.url));
const CLUSTER = { numRanks: 16, ranksPerNode: 8, device: 'cuda' } as const;

describe('Slurm', { timeout: PATIENCE_MS }, () => {
  beforeEach(() => vi.stubEnv('PATH', `${BIN}:${process.env['PATH']}`));
  afterEach(() => vi.unstubAllEnvs());

  test('a script asks for the hosts of the plan, and for what the user says after that', () => {
    const script = slurmScript({
      cluster: CLUSTER,
      options: ' --partition=gpu  --time=8:00:00',
      folder: '/my run',
      command: ['fpdt', "it's"],
    });
    expect(script.split('\n')).toEqual([
      '#!/bin/bash',
      expect.stringMatching(/^# Written by fpdt run --slurm/),
      '#SBATCH --job-name=fpdt',
      '#SBATCH --nodes=2',
      '#SBATCH --ntasks-per-node=1',
      '#SBATCH --gpus-per-node=8',
      '#SBATCH --exclusive',
      '#SBATCH --signal=B:TERM@120',
      '#SBATCH --partition=gpu',
      '#SBATCH --time=8:00:00',
      "cd '/my run' || exit 1",
      "exec fpdt 'it'\\''s'",
      '',
    ]);
    const bad = (options: string): unknown => slurmScript({ cluster: CLUSTER, options, folder: '/', command: [] });
    expect(() => bad('-p gpu')).toThrow(expect.objectContaining({ code: 'usage', message: expect.stringContaining("'-p'") }));
  });

  test('a run is checked, written and submitted; the script begins the same run on the allocation', async () => {
    const folder = await makeFolder();
    const [plan, data, script] = [join(folder, 'plan.json'), join(folder, 'text.txt'), join(folder, 'job')];
    writeFileSync(data, 'text');
    await capture('plan', ...DEMO, '--ranks-per-node', '1', '--output', plan);
    const submit = (...more: readonly string[]) => capture('run', plan, '--data', data, '--slurm', '--slurm-script', script, ...more);
    expect(await submit('--steps', '3', '--no-shuffle')).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: `wrote ${script} and submitted it as job 4242`,
    });
    expect(readFileSync(script, 'utf8')).toMatch(/ run \S+plan\.json --data=\S+text\.txt --steps=3 --no-shuffle --srun$/m);
    rmSync(data);
    expect(await submit()).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('there is no data file') });
    // What the job runs is a run of this package: it looks for the data as any does.
    const command = readFileSync(script, 'utf8').replace(/exec (\S+) .* run /, `exec $1 --import tsx src/cli/main.ts run `);
    const job = spawnSync('bash', ['-c', command], { env: { ...process.env, SLURM_JOB_NUM_NODES: '2' }, encoding: 'utf8' });
    expect(job.stderr).toContain('there is no data file');
    const few = spawnSync('bash', ['-c', command], { env: { ...process.env, SLURM_JOB_NUM_NODES: '1' }, encoding: 'utf8' });
    expect(few.stderr).toContain('2 hosts, there are 1');
  });

  test.each([
    [
      ['--slurm', '--slurm-options', '--partition=nowhere'],
      1,
      /sbatch refuses .*invalid partition specified: nowhere\nhint: .*--slurm-options/,
    ],
    [['--slurm', '--srun'], 2, /each say where the ranks are to be/],
    [['--slurm-options', '--time=1'], 2, /need --slurm/],
    [['--srun'], 1, /SLURM_JOB_NUM_NODES is not set/],
    [['--include', 'a'], 2, /--include is about the hosts of a hostfile/],
    [['--hostfile', 'nowhere'], 1, /cannot read the hostfile nowhere: there is no such file/],
  ])('%j is refused', async (args, code, message) => {
    const folder = await makeFolder();
    const plan = join(folder, 'plan.json');
    await capture('plan', ...DEMO, '--output', plan);
    const script = args.includes('--slurm') ? ['--slurm-script', join(folder, 'job')] : [];
    const { exitCode, stderr } = await capture('run', plan, '--data', 'package.json', ...args, ...script);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(code);
  });

  test('a hostfile that nothing can be read from is refused, not waited for', async () => {
    const folder = await makeFolder();
    const [plan, hostfile] = [join(folder, 'plan.json'), join(folder, 'hosts')];
    await capture('plan', ...DEMO, '--output', plan);
    spawnSync('mkfifo', [hostfile]);
    const { exitCode, stderr } = await capture('run', plan, '--data', 'package.json', '--hostfile', hostfile);
    expect(stderr).toContain('it is a FIFO');
    expect(exitCode).toBe(1);
  });

  test('agents that srun starts find their place', async () => {
    const environment = { ...ENVIRONMENT, SLURM_JOB_NUM_NODES: '2' };
    const cluster = { numRanks: 2, ranksPerNode: 1 };
    const options = { srun: true, agent: AGENT, address: '127.0.0.1' };
    const openHosts = hostsOf({ cluster } as Parameters<typeof hostsOf>[0], options, undefined, environment);
    const run = await startRun(echoSetup('ok', { plan: wirePlan(), openHosts }));
    const lines = (await collect(run)).flatMap((event) => (event.type === 'log' ? [event.line] : []));
    expect(lines).toEqual(expect.arrayContaining(['echo session of rank 0 closed', 'echo session of rank 1 closed']));
    expect((await run.result).steps).toHaveLength(3);
  });
});
