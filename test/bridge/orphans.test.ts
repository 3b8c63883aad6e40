/** Controllers killed with SIGKILL at all moments of a run: no process of theirs may be left. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { makeFolder } from './folder.js';
import { PATIENCE_MS } from './patience.js';

const PROGRAM = fileURLToPath(new URL('./controllerProgram.ts', import.meta.url));
const CLI = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const MARK = `FPDT_TEST_MARK=${randomUUID()}`;
const MAX_LEFT_MS = 60_000;

afterEach(() => {
  for (const pid of markedPids()) process.kill(pid, 'SIGKILL');
});

describe('ranks do not outlive a controller that is killed', { timeout: PATIENCE_MS }, () => {
  test('in a step', async () => {
    const controller = await startController();
    await pidLines(controller, 2);
    await killed(controller);
  });

  test('nor do children that a rank has made', async () => {
    const controller = await startController('child@0:0');
    await pidLines(controller, 2);
    await killed(controller);
  });

  test('at random moments', async () => {
    for (let round = 0; round < 4; round += 1) {
      const killed = await Promise.all(WINDOWS.map(killWithin));
      await expectNothingLeft(killed.join('; '));
    }
  });
});

test('a calibration does not outlive what asked for it', { timeout: PATIENCE_MS }, async () => {
  const args = ['calibrate', '--model', 'examples/demo/model', '--ranks', '2', '--chunk-tokens', '1024', '--seconds', '600'];
  const controller = await start(CLI, [...args, '--output', join(await makeFolder(), 'cluster.json')]);
  const areRanksHere = (): boolean => markedPids().filter((pid) => describeProcess(pid).includes('fpdt.calibrate')).length === 2;
  await vi.waitUntil(() => areRanksHere() || controller.exitCode !== null, { timeout: PATIENCE_MS });
  expect(controller.exitCode).toBeNull();
  await killed(controller);
});

/** From the start of the controller; from that of its ranks, while they have hardly begun; and up to their first steps. */
const WINDOWS = [
  { numLines: 0, maxMs: 1000 },
  { numLines: 1, maxMs: 50 },
  { numLines: 1, maxMs: 800 },
] as const;

async function killWithin({ numLines, maxMs }: (typeof WINDOWS)[number]): Promise<string> {
  const ms = Math.random() * maxMs;
  const controller = await startController();
  await pidLines(controller, numLines);
  await sleep(ms);
  controller.kill('SIGKILL');
  return `${ms.toFixed(0)} ms after ${numLines === 0 ? 'the start' : 'the ranks'}`;
}

async function killed(controller: ChildProcess): Promise<void> {
  const exit = once(controller, 'exit');
  controller.kill('SIGKILL');
  await exit;
  await expectNothingLeft('in the middle');
}

async function startController(fault = 'hang@0:0'): Promise<ChildProcess> {
  return start(PROGRAM, [fault]);
}

async function start(program: string, args: readonly string[]): Promise<ChildProcess> {
  const [name = '', value = ''] = MARK.split('=');
  // A killed controller cannot remove its folder of sockets.
  const env = { ...process.env, TMPDIR: await makeFolder(), [name]: value };
  return spawn(process.execPath, ['--import', 'tsx', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env });
}

async function pidLines({ stdout }: ChildProcess, numLines: number): Promise<void> {
  if (numLines === 0 || stdout === null) return;
  let numSeen = 0;
  for await (const line of createInterface({ input: stdout })) {
    expect(JSON.parse(line)).toHaveLength(2);
    numSeen += 1;
    if (numSeen === numLines) return;
  }
  throw new Error('the controller ended first');
}

async function expectNothingLeft(when: string): Promise<void> {
  await vi.waitUntil(() => markedPids().length === 0, { timeout: MAX_LEFT_MS }).catch(() => undefined);
  expect(markedPids().map(describeProcess), when).toEqual([]);
}

/** Processes that were started, directly or not, with the mark in their environment; a zombie has none any more. */
function markedPids(): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => readOrEmpty(`/proc/${pid}/environ`).split('\0').includes(MARK)).map(Number);
}

function describeProcess(pid: number): string {
  return `${pid}: ${readOrEmpty(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`;
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // It has ended, or belongs to somebody else.
  }
}
