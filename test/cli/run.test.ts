import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunEvent } from '../../src/bridge/events.js';
import { capture, DEMO } from './capture.js';

let folder: string;
let planPath: string;
let data: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-run-'));
  planPath = join(folder, 'plan.json');
  data = join(folder, 'text.txt');
  writeFileSync(data, 'the quick brown fox jumps over the lazy dog. '.repeat(2000));
  expect(await capture('plan', ...DEMO, '--steps', '3', '--output', planPath)).toMatchObject({ exitCode: 0 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fpdt run', () => {
  it('trains, shows progress and holds the run against the plan', async () => {
    const { exitCode, stdout, stderr } = await capture('run', planPath, '--data', data);
    expect(stderr).toContain('2 ranks ready');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/step 1\/3 {2}loss \d/);
    expect(stdout).toMatch(/step 3\/3/);
    expect(stdout).toMatch(/op kind +planned +run/);
  });

  it('prints one JSON object an event with --json', async () => {
    const { exitCode, stdout } = await capture('run', planPath, '--data', data, '--steps', '1', '--json');
    expect(exitCode).toBe(0);
    const events = stdout.split('\n').map((line) => JSON.parse(line) as { readonly type: string });
    expect(events.filter(({ type }) => type === 'step')).toHaveLength(1);
    expect(events.at(-2)).toMatchObject({ type: 'end', outcome: { ok: true } });
    expect(events.at(-1)).toMatchObject({ type: 'comparison', comparison: { kind: 'comparison' } });
  });

  it('keeps on disk what the plan keeps there, and traces the steps it is told to', async () => {
    const diskPlan = join(folder, 'disk.json');
    const strategy = join(folder, 'strategy.json');
    writeFileSync(strategy, JSON.stringify({ layers: [{ layers: [0, 2], attentionOutput: 'disk' }] }));
    await capture('plan', ...DEMO, '--disk-bytes', '1G', '--strategy', strategy, '--output', diskPlan);
    const disk = join(folder, 'disk');
    const traces = join(folder, 'traces');
    mkdirSync(disk);
    const options = ['--steps', '2', '--disk-folder', disk, '--record-layers', '2', '--trace-steps', '1', '--trace-folder', traces];
    const { exitCode, stdout } = await capture('run', diskPlan, '--data', data, ...options);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/copied write +(\S+ KiB) +\1 +1\.00x/);
    expect(readdirSync(traces)).toHaveLength(2);
    expect(readdirSync(disk)).toEqual([]);
  });

  it("has DeepSpeed's monitors, timers and profiler as the ds_config asks for them", async () => {
    const [plan, config, flops] = [join(folder, 'timed.json'), join(folder, 'timed-ds.json'), join(folder, 'flops.txt')];
    const asked = {
      wall_clock_breakdown: true,
      steps_per_print: 1,
      comms_logger: { enabled: true },
      csv_monitor: { enabled: true, output_path: folder, job_name: 'monitored' },
      flops_profiler: { enabled: true, profile_step: 1, output_file: flops },
    };
    writeFileSync(config, JSON.stringify({ train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 2 }, ...asked }));
    await capture('plan', ...DEMO, '--deepspeed', config, '--steps', '2', '--output', plan);
    const { exitCode, stderr } = await capture('run', plan, '--data', data);
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(/^rank 0: .*time \(ms\) \| fwd: [\d.]+ \| bwd: /m);
    expect(stderr).toMatch(/^rank 0: all_reduce\n/m);
    expect(readdirSync(join(folder, 'monitored'))).toContain('Train_Samples_lr.csv');
    expect(readFileSync(flops, 'utf8')).toContain('Flops Profiler');
  });

  it('says which rank failed and why, without a traceback where a user can mend it', async () => {
    const ids = join(folder, 'ids.bin');
    writeFileSync(ids, Buffer.from(new Int32Array(100_000).fill(1_000_000).buffer));
    const { exitCode, stderr } = await capture('run', planPath, '--data', ids);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^error: rank \d: .*token \d+ of .*ids\.bin has id 1000000, outside the vocabulary.*\nhint: .*$/m);
    expect(stderr).not.toContain('Traceback');
  });

  it('says what is wrong with the data before a rank is started, in one error', async () => {
    const { exitCode, stderr } = await capture('run', planPath, '--data', join(folder, 'none.txt'));
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^error: there is no data file .*none\.txt\nhint: .*$/);
  });

  it.each([
    [['--data', 'none.txt'], /^error: there is no data file none\.txt\nhint: .*$/],
    [['--data', 'package.json', '--eval-data', 'none.txt'], /there is data to evaluate, but the plan has no program/],
    [['--data', 'package.json', '--disk-folder', 'package.json'], /^error: disk-folder: 'package\.json' is no folder\nhint: .*$/],
    [['--data', '/dev/null'], /^error: \/dev\/null is no plain file\nhint: .*$/],
    [['--data', 'package.json', '--trace-steps', '1', '--trace-folder', 'package.json'], /'package\.json' is no folder/],
    [['--data', 'package.json', '--checkpoint', 'package.json'], /'package\.json' is no folder/],
    [['--data', 'package.json', '--dump-grads', 'package.json'], /'package\.json' is no folder/],
  ])('refuses %j before Python is started', async (args, message) => {
    // It would say so if it were.
    const python = join(folder, 'python');
    writeFileSync(python, `#!/bin/sh\ntouch '${join(folder, 'started')}'\n`, { mode: 0o755 });
    const { exitCode, stderr } = await capture('run', planPath, ...args, '--python', python);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(1);
    expect(readdirSync(folder)).not.toContain('started');
  });

  it('prepares rows, trains on them, and finds them prepared', { tags: ['full'] }, async () => {
    const rows = join(folder, 'rows.jsonl');
    writeFileSync(rows, JSON.stringify({ ids: Array.from({ length: 70_000 }, (_, number) => number % 200) }));
    const options = ['--data-field', 'ids', '--data-cache', join(folder, 'cache'), '--shuffle', '--data-seed', '3', '--steps', '1'];
    const { exitCode, stderr } = await capture('run', planPath, '--data', rows, ...options);
    expect(stderr).toContain('2 ranks ready');
    expect(exitCode).toBe(0);
    expect(readdirSync(join(folder, 'cache'))).toEqual([expect.stringMatching(/^rows\.jsonl-[0-9a-f]{16}$/)]);
  });

  it('refuses a Python that does not exist', async () => {
    const { exitCode, stderr } = await capture('run', planPath, '--data', data, '--python', '/nowhere/python');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/error: option python names \/nowhere\/python[\s\S]*hint: /);
  });

  it.each([
    [['--trace-steps', '0,2'], /--trace-steps needs --trace-folder/],
    [['--trace-folder', 'traces'], /--trace-folder needs --trace-steps/],
    [['--trace-steps', '0,x', '--trace-folder', 'traces'], /Expected a whole number, found 'x'/],
    [['--on-unwritable', 'stop'], /--on-unwritable needs --run-folder/],
    [['--eval-every', '0', '--eval-data', 'held_out'], /--eval-every/],
    [['--record-layers', 'all'], /Expected a whole number, found 'all'/],
    [['--attention', 'reference'], /unknown option '--attention'/],
    [['--long-documents', 'cut'], /Allowed choices are refuse, split, truncate/],
    [['--data-dtype', 'int8'], /Allowed choices are int32, uint16/],
  ])('refuses %j as wrong usage', async (args, message) => {
    const { exitCode, stderr } = await capture('run', planPath, '--data', data, ...args);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('saves on SIGTERM, exits with 75 and goes on to the losses of a run that was not stopped', { tags: ['full'] }, async () => {
    const saved = join(folder, 'saved');
    const args = ['run', planPath, '--data', data, '--steps', '100000', '--checkpoint', saved, '--resume', 'auto', '--json'];
    const child = spawn(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    const pids = await pidsAtFirstStep(child);
    child.kill('SIGTERM');
    const [code] = (await once(child, 'exit')) as [number | null];
    expect(code).toBe(75);
    expect(pids.filter(isAlive)).toEqual([]);
    const [name] = readdirSync(saved).filter((one) => one !== 'lock');
    const step = Number(name?.replace('step-', ''));
    expect(step).toBeGreaterThan(0);
    const steps = String(step + 2);
    const rest = await capture('run', planPath, '--data', data, '--steps', steps, '--checkpoint', saved, '--resume', 'auto', '--json');
    const whole = await capture('run', planPath, '--data', data, '--steps', steps, '--json');
    expect(lossesOf(rest.stdout)).toEqual(lossesOf(whole.stdout).slice(step));
    const other = await capture('plan', ...DEMO, '--steps', '3', '--model', otherModel(), '--output', join(folder, 'other.json'));
    expect(other.exitCode).toBe(0);
    const refused = await capture(
      'run',
      join(folder, 'other.json'),
      '--data',
      data,
      '--resume',
      join(saved, `step-${steps.padStart(8, '0')}`),
    );
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/is of another model: config\.intermediate_size is \d+ there, \d+ in the plan/);
  });

  it.each([
    [['--eval-every', '2'], /evalEvery is given, but there is no data to evaluate\n.*--eval-data/],
    [['--eval-data', 'held_out'], /the plan has no program that evaluates\n.*plan with --evaluate/],
    [['--log', 'wandb'], /wandb need the folder of a run\n.*--run-folder/],
    [['--log', 'wandb,comet', '--run-folder', '/dev/null/run'], /loggers: expected tensorboard or wandb or mlflow, found "comet"/],
    [['--run-folder', '/dev/null'], /run folder: '\/dev\/null' is no folder/],
  ])('refuses %j before a rank is started', async (args, message) => {
    const { exitCode, stderr } = await capture('run', planPath, '--data', data, ...args);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(message);
  });

  it('evaluates between steps and keeps what is worth keeping', { tags: ['full'] }, async () => {
    const evaluated = join(folder, 'evaluated.json');
    expect(await capture('plan', ...DEMO, '--steps', '2', '--evaluate', '--output', evaluated)).toMatchObject({ exitCode: 0 });
    const kept = join(folder, 'kept');
    const options = ['--eval-data', data, '--eval-sequences', '2', '--eval-every', '1', '--run-folder', kept];
    const { exitCode, stdout, stderr } = await capture('run', evaluated, '--data', data, ...options);
    expect(stderr).toContain('2 ranks ready');
    expect(exitCode).toBe(0);
    expect(stdout.match(/^evaluation after step \d {2}loss \d.* of 2 sequences in .* \(plan .*\)$/gm)).toHaveLength(2);
    const lines = readFileSync(join(kept, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { readonly kind: string }).kind).sort()).toEqual([
      'evaluationMetrics',
      'evaluationMetrics',
      'stepMetrics',
      'stepMetrics',
    ]);
    expect(readFileSync(join(kept, 'rank-0.log'), 'utf8')).not.toBe('');
    const again = await capture('run', evaluated, '--data', data, '--run-folder', kept);
    expect(again).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('holds another run') as string });
  });

  it('stops all ranks on Ctrl-C and exits with 130', async () => {
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', 'src/cli/main.ts', 'run', planPath, '--data', data, '--steps', '100000', '--json'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    const pids = await pidsAtFirstStep(child);
    expect(pids).toHaveLength(2);
    child.kill('SIGINT');
    const [code] = (await once(child, 'exit')) as [number | null];
    expect(code).toBe(130);
    expect(pids.filter(isAlive)).toEqual([]);
  });
});

function lossesOf(stdout: string): readonly (readonly [number, number | null])[] {
  const events = stdout.split('\n').map((line) => JSON.parse(line) as RunEvent);
  return events.flatMap((event) => (event.type === 'step' ? [[event.step.step, event.step.loss] as const] : []));
}

/** The demo's with a wider MLP. */
function otherModel(): string {
  const path = join(folder, 'other-model.json');
  const config = JSON.parse(readFileSync(String(DEMO[DEMO.indexOf('--model') + 1]), 'utf8')) as { intermediate_size: number };
  writeFileSync(path, JSON.stringify({ ...config, intermediate_size: 2 * config.intermediate_size }));
  return path;
}

/** Ranks tell their process ids in the event that says they have started. */
async function pidsAtFirstStep(child: ChildProcess): Promise<readonly number[]> {
  if (child.stdout === null) throw new Error('the child has no stdout');
  const pids: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as { readonly type: string; readonly state?: string; readonly detail?: string };
    const pid = /pid (\d+)/.exec(event.detail ?? '')?.[1];
    if (event.type === 'rank' && event.state === 'started' && pid !== undefined) pids.push(Number(pid));
    if (event.type === 'step') break;
  }
  child.stdout.resume();
  return pids;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
