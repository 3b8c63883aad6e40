import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type { RunEvent } from '../../src/bridge/events.js';
import { lastStepOf } from '../../src/bridge/runFolder/metrics.js';
import { openRunFolder, type RunFolderInput } from '../../src/bridge/runFolder/runFolder.js';
import { readPlanFile } from '../../src/plan/file.js';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { samplePlan } from '../plan/samplePlan.js';
import { step } from '../report/sample.js';
import { makeFolder } from './folder.js';

/** Bytes that still fit on the disk, and whether it takes new files: the mode of a folder does not keep them from root. */
const disk = vi.hoisted(() => ({ freeBytes: Number.POSITIVE_INFINITY, isReadOnly: false }));

vi.mock('node:fs', async (importOriginal) => {
  const fs = await importOriginal<typeof import('node:fs')>();
  const writeSync = (handle: number, bytes: Buffer, offset: number): number => {
    const count = Math.min(disk.freeBytes, bytes.length - offset);
    if (count === 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    disk.freeBytes -= count;
    return fs.writeSync(handle, bytes, offset, count);
  };
  const writeFileSync = (...args: Parameters<typeof fs.writeFileSync>): void => {
    if (disk.isReadOnly) throw Object.assign(new Error('EROFS: read-only file system, open'), { code: 'EROFS' });
    fs.writeFileSync(...args);
  };
  return { ...fs, default: fs, writeSync, writeFileSync };
});

const plan = samplePlan();
let path: string;
const input = (changes: Partial<RunFolderInput> = {}): RunFolderInput => ({
  path,
  plan,
  options: { data: 'corpus.bin', numSteps: 3 },
  resumes: false,
  onUnwritable: 'remark',
  version: '0.1.0',
  ...changes,
});
const stepEvent = (number: number): RunEvent => ({ type: 'step', step: step(number), ranks: [] });
const log = (line: string): RunEvent => ({ type: 'log', rank: 0, stream: 'stderr', line });
const read = (name: string): string => readFileSync(join(path, name), 'utf8');
const lines = (): readonly { readonly step: number; readonly repeated: boolean }[] =>
  read('metrics.jsonl')
    .trimEnd()
    .split('\n')
    .map((line) => OUTPUT_SCHEMAS.stepMetrics.parse(JSON.parse(line)));

beforeEach(async () => {
  disk.freeBytes = Number.POSITIVE_INFINITY;
  disk.isReadOnly = false;
  path = join(await makeFolder(), 'runs', 'first');
});

describe('the folder of a run', () => {
  test('holds what was asked for, the plan, a line a step and what ranks printed', async () => {
    const folder = await openRunFolder(input());
    expect(statSync(path).mode & 0o777 & ~process.umask()).toBe(0o755 & ~process.umask());
    const events = [log('loading'), stepEvent(0), stepEvent(1), { type: 'log', rank: null, stream: 'stderr', line: 'a remark' } as const];
    expect(events.flatMap((event) => folder.record(event))).toEqual([]);
    expect(await folder.close()).toEqual([]);
    expect(readdirSync(path).sort()).toEqual([
      'config.json',
      'metrics.jsonl',
      'plan.json',
      ...plan.layout.sequenceGroups.flat().map((rank) => `rank-${rank}.log`),
    ]);
    expect(JSON.parse(read('config.json'))).toMatchObject({
      kind: 'runConfig',
      version: '0.1.0',
      digest: plan.digest,
      options: { data: 'corpus.bin', numSteps: 3 },
      model: { hiddenSize: plan.model.hiddenSize },
      deepspeed: plan.deepspeed,
      cluster: { numRanks: plan.cluster.numRanks },
    });
    expect((await readPlanFile(join(path, 'plan.json'))).digest).toBe(plan.digest);
    expect(read('rank-0.log')).toBe('loading\n');
    const [device] = plan.memory.pools;
    expect(lines()).toMatchObject([
      { step: 0, loss: 5, learningRate: 1e-4, gradientNorm: 0.75, tokens: 1000, tokensPerSecond: 1000 / 2.1, memory: {}, repeated: false },
      { step: 1, memory: { [device?.pool ?? '']: { plannedBytes: device?.peakBytes } }, repeated: false },
    ]);
  });

  test('is refused where another run is, and goes on with one: later files are numbered, steps that are run again are marked', async () => {
    const first = await openRunFolder(input());
    for (const number of [0, 1, 2]) first.record(stepEvent(number));
    await first.close();
    await expect(openRunFolder(input())).rejects.toMatchObject({ code: 'run-folder-in-use' });
    // The controller was killed while it wrote.
    writeFileSync(join(path, 'metrics.jsonl'), `${read('metrics.jsonl')}{"kind":"stepMe`);
    const second = await openRunFolder(input({ resumes: true, options: { data: 'corpus.bin', numSteps: 9 } }));
    for (const number of [2, 3]) second.record(stepEvent(number));
    second.record(stepEvent(3));
    await second.close();
    expect(lines().map((line) => [line.step, line.repeated])).toEqual([
      [0, false],
      [1, false],
      [2, false],
      [2, true],
      [3, false],
      [3, true],
    ]);
    expect(JSON.parse(read('config.2.json'))).toMatchObject({ options: { numSteps: 9 } });
    expect(JSON.parse(read('config.json'))).toMatchObject({ options: { numSteps: 3 } });
    expect(readdirSync(path)).toContain('plan.2.json');
  });

  test('is refused where only metrics are left of another run', async () => {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'metrics.jsonl'), '');
    await expect(openRunFolder(input())).rejects.toMatchObject({ code: 'run-folder-in-use' });
  });

  test.each(['metrics.jsonl', 'rank-0.log'])('is refused where %s is a FIFO, a link or a folder', async (name) => {
    mkdirSync(path, { recursive: true });
    const target = join(path, name);
    const refused = { code: 'output-not-a-file', details: { path: target } };
    for (const make of [
      () => execFileSync('mkfifo', [target]),
      () => symlinkSync('/dev/null', target),
      () => symlinkSync(join(path, 'nowhere'), target),
      () => mkdirSync(target),
    ]) {
      make();
      await expect(openRunFolder(input({ resumes: true }))).rejects.toMatchObject(refused);
      execFileSync('rm', ['-r', target]);
    }
    expect(readdirSync(path)).not.toContain('config.json');
  });

  test.each(['file', 'link', 'FIFO'])('is refused where it is a %s', async (kind) => {
    mkdirSync(join(path, '..'), { recursive: true });
    const real = join(path, '..', 'real');
    mkdirSync(real);
    if (kind === 'file') writeFileSync(path, '');
    else if (kind === 'link') symlinkSync(real, path);
    else execFileSync('mkfifo', [path]);
    await expect(openRunFolder(input())).rejects.toMatchObject({ code: 'run-folder-not-a-folder' });
    expect(readdirSync(real)).toEqual([]);
  });

  test('is refused where it cannot be written', async () => {
    mkdirSync(path, { recursive: true });
    disk.isReadOnly = true;
    await expect(openRunFolder(input())).rejects.toMatchObject({ code: 'run-folder-unwritable' });
  });

  test('is refused where its own folder is no folder', async () => {
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, '');
    await expect(openRunFolder(input({ path: join(path, 'inner') }))).rejects.toMatchObject({ code: 'run-folder-unwritable' });
  });
});

describe('a full disk', () => {
  test('costs whole lines, is remarked on once, and is told of when there is room again', async () => {
    const folder = await openRunFolder(input());
    folder.record(stepEvent(0));
    const whole = read('metrics.jsonl');
    disk.freeBytes = 40;
    expect(folder.record(stepEvent(1))).toEqual(['metrics.jsonl is not written: ENOSPC: no space left on device, write']);
    expect(read('metrics.jsonl')).toBe(whole);
    expect(folder.record(stepEvent(2))).toEqual([]);
    disk.freeBytes = Number.POSITIVE_INFINITY;
    expect(folder.record(stepEvent(3))).toEqual(['metrics.jsonl is written again; 2 lines are missing']);
    expect(lines().map((line) => line.step)).toEqual([0, 3]);
    disk.freeBytes = 0;
    expect(folder.record(log('lost'))).toHaveLength(1);
    expect(await folder.close()).toEqual(['rank-0.log: a line is missing']);
  });

  test('stops the run where that was asked for', async () => {
    const folder = await openRunFolder(input({ onUnwritable: 'stop' }));
    disk.freeBytes = 10;
    expect(() => folder.record(stepEvent(0))).toThrow(/cannot write to .*no space left/);
    expect(read('metrics.jsonl')).toBe('');
    await folder.close();
  });
});

test('evaluations have lines of their own, marked where one after as many steps is there', async () => {
  const evaluation = { step: 2, loss: 2.5, perplexity: Math.exp(2.5), sequences: 4, tokens: 256, seconds: 1.5 };
  const first = await openRunFolder(input());
  for (const event of [stepEvent(1), stepEvent(2), { type: 'evaluation', evaluation } as const]) first.record(event);
  await first.close();
  const second = await openRunFolder(input({ resumes: true }));
  second.record({ type: 'evaluation', evaluation });
  second.record({ type: 'evaluation', evaluation: { ...evaluation, step: 4, loss: null, perplexity: null } });
  await second.close();
  const written = read('metrics.jsonl').trimEnd().split('\n').slice(2);
  expect(written.map((line) => OUTPUT_SCHEMAS.evaluationMetrics.parse(JSON.parse(line)))).toMatchObject([
    { ...evaluation, repeated: false },
    { ...evaluation, repeated: true },
    { step: 4, loss: null, perplexity: null, repeated: false },
  ]);
});

test('the last step of metrics is the greatest of its kind, and what is no metrics counts for nothing', () => {
  const text = [
    '{"kind":"stepMetrics","step":7}',
    'not json',
    '[1]',
    '{"kind":"evaluationMetrics","step":9}',
    '{"kind":"stepMetrics","step":6}',
  ];
  expect(lastStepOf('', 'stepMetrics')).toBe(-1);
  expect(lastStepOf(text.join('\n'), 'stepMetrics')).toBe(7);
  expect(lastStepOf(text.join('\n'), 'evaluationMetrics')).toBe(9);
});
