import { expect, test } from 'vitest';
import { EventQueue, type RunEvent } from '../../src/bridge/events.js';
import { mergeRanks, mergeSteps } from '../../src/bridge/runResult.js';
import type { StepDone } from '../../src/bridge/protocol.js';
import { FpdtError } from '../../src/spec/errors.js';

const log = (line: string) => ({ type: 'log', rank: 0, stream: 'stdout', line }) as const;
const rank = (state: 'hello' | 'ready') => ({ type: 'rank', rank: 0, state, detail: '' }) as const;
const done = (changes: Partial<StepDone>): StepDone => ({
  step: 0,
  loss: 2,
  learningRate: 1e-4,
  gradientNorm: 0.75,
  seconds: 1,
  numTokens: 64,
  poolBytes: { hbm: 10, host: 5 },
  memoryMeasured: true,
  copiedBytes: { h2d: 1, d2h: 2 },
  byKind: {},
  idleSeconds: 0,
  opsTimed: true,
  nonFinite: [],
  nonFinitePlace: null,
  lossScale: 1,
  skipped: false,
  ...changes,
});
const result = mergeSteps([mergeRanks([done({})])], [], {
  digest: 'd',
  numRanks: 1,
  versions: {},
  kernels: {},
  loadSeconds: 0,
  loadPoolBytes: {},
  communicatorBytes: null,
  nextStep: 0,
  isStopped: false,
  checkpoints: [],
});

test('a slow listener loses logs and telemetry beyond the limit, nothing else, and is told', async () => {
  const queue = new EventQueue(2);
  for (const event of [log('a'), rank('hello'), log('b'), log('c'), log('d'), rank('ready')]) queue.push(event);
  queue.close({ ok: true, result });
  const events: RunEvent[] = [];
  for await (const event of queue) events.push(event);
  expect(events.map((one) => (one.type === 'log' ? one.line : one.type))).toEqual(['a', 'rank', 'b', 'rank', 'end']);
  expect(events.at(-1)).toMatchObject({ numDroppedEvents: 2 });
});

test('room that a listener makes is used again', async () => {
  const queue = new EventQueue(1);
  queue.push(log('a'));
  await queue.next();
  queue.push(log('b'));
  expect(await queue.next()).toEqual({ done: false, value: log('b') });
});

test('a waiting listener is woken', async () => {
  const queue = new EventQueue();
  const waiting = queue.next();
  queue.push(log('late'));
  expect(await waiting).toEqual({ done: false, value: log('late') });
});

test('a failed run throws once, after its end event; what comes later is ignored', async () => {
  const queue = new EventQueue();
  const error = new FpdtError('no', { code: 'rank-failed' });
  queue.close({ ok: false, error });
  queue.push(log('too late'));
  expect((await queue.next()).value).toMatchObject({ type: 'end', outcome: { ok: false } });
  await expect(queue.next()).rejects.toBe(error);
  expect(await queue.next()).toEqual({ done: true, value: undefined });
});

test('a step takes peaks of the worst rank and mean times', () => {
  const step = mergeRanks([
    done({ poolBytes: { hbm: 30, disk: 4 }, byKind: { attn: { count: 4, seconds: 1 } }, idleSeconds: 1 }),
    done({
      seconds: 3,
      poolBytes: { hbm: 10, host: 7 },
      copiedBytes: { h2d: 3 },
      byKind: { attn: { count: 4, seconds: 2 }, copy: { count: 2, seconds: 1 } },
    }),
  ]);
  expect(step).toMatchObject({ seconds: 3, tokens: 64, idleSeconds: 0.5, memoryMeasured: true });
  expect(step.poolBytes).toEqual({ disk: 4, hbm: 30, host: 7 });
  expect(step.copiedBytes).toEqual({ d2h: 2, h2d: 3 });
  expect(step.byKind).toEqual({ attn: { count: 4, seconds: 1.5 }, copy: { count: 1, seconds: 0.5 } });
});

test('a step counts as measured when every rank measured it', () => {
  expect(mergeRanks([done({}), done({ memoryMeasured: false })])).toMatchObject({ memoryMeasured: false, opsTimed: true });
  expect(mergeRanks([done({}), done({ opsTimed: false })])).toMatchObject({ memoryMeasured: true, opsTimed: false });
});

const FACTS = {
  digest: 'd',
  numRanks: 1,
  versions: {},
  kernels: {},
  loadSeconds: 0,
  loadPoolBytes: {},
  communicatorBytes: null,
  nextStep: 1,
  isStopped: false,
  checkpoints: [],
};

test('a run adds its steps up and keeps the peaks of those that measured memory', () => {
  const steps = [
    done({ poolBytes: { hbm: 3 } }),
    done({ step: 1, poolBytes: { hbm: 9 }, nonFinite: ['loss'], lossScale: 8, skipped: true }),
    done({ step: 2, poolBytes: { hbm: 11 }, memoryMeasured: false, copiedBytes: { read: 5 } }),
  ].map((one) => mergeRanks([one]));
  const run = mergeSteps(steps, [], FACTS);
  expect(run).toMatchObject({ seconds: 3, tokens: 192, memoryMeasured: true, nonFinite: ['loss'], numSkipped: 1 });
  expect(run.steps[1]).toMatchObject({ lossScale: 8, skipped: true });
  expect(run.poolBytes).toEqual({ hbm: 9 });
  expect(run.copiedBytes).toEqual({ d2h: 4, h2d: 2, read: 5 });
  expect(run.opsTimed).toBe(true);
});

test('a run without a step measured nothing', () => {
  const run = mergeSteps([], [], FACTS);
  expect(run).toMatchObject({ poolBytes: {}, memoryMeasured: false, opsTimed: false, copiedBytes: {} });
});
