import { expect, test } from 'vitest';
import { findCause, toError, type Failure } from '../../src/bridge/failure.js';

const place = (rank: number) => ({ rank, phase: 'stepping', step: 3 }) as const;
const error = (rank: number, kind = 'RuntimeError'): Failure => ({
  kind: 'error',
  ...place(rank),
  error: { kind, message: 'Connection closed by peer', traceback: 'Traceback', hint: null, phase: 'stepping', step: 3 },
});
const exit = (rank: number, signal: string | null): Failure => ({
  kind: 'exit',
  ...place(rank),
  exit: { code: signal === null ? 1 : null, signal, startError: null },
});

test('a rank that ended without a word is the cause of its peers errors', () => {
  expect(findCause([error(0), exit(1, 'SIGKILL')])).toMatchObject({ kind: 'exit', rank: 1 });
});

test('an exit after an error of the same rank is not the cause', () => {
  expect(findCause([exit(1, null), error(1)])).toMatchObject({ kind: 'error', rank: 1 });
});

test('of several errors the first counts, and the others are told', () => {
  const found = toError([error(1), error(0)], (rank) => `stderr of ${rank}`);
  expect(found.message).toBe('rank 1: RuntimeError: Connection closed by peer (phase stepping, step 3)');
  expect(found.details).toMatchObject({ rank: 1, traceback: 'Traceback', stderrTail: 'stderr of 1' });
  expect(found.details?.others).toEqual(['rank 0: RuntimeError: Connection closed by peer (phase stepping, step 3)']);
});

test('a missing module in a worker that never said hello names setup', () => {
  const failure: Failure = { ...exit(0, null), phase: 'starting', step: null } as Failure;
  const found = toError([failure], () => "Traceback\nModuleNotFoundError: No module named 'zmq'");
  expect(found).toMatchObject({
    code: 'python-packages-missing',
    hint: expect.stringContaining("No module named 'zmq': run `npx fpdt setup`"),
  });
});

test('SIGKILL points to the out-of-memory killer', () => {
  expect(toError([exit(0, 'SIGKILL')], () => '').hint).toContain('out-of-memory');
});

test('a hint of the worker is passed on', () => {
  const failure = error(0, 'PlanRefusedError') as Extract<Failure, { kind: 'error' }>;
  const found = toError([{ ...failure, error: { ...failure.error, hint: 'plan again' } }], () => '');
  expect(found).toMatchObject({ code: 'plan-refused', hint: 'plan again' });
});
