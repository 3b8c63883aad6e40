/** Runs of the echo worker: the whole bridge with real processes and without torch. */

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { resolvePython } from '../../src/bridge/python.js';
import { PACKAGE_ROOT } from '../../src/package.js';
import { isGroupAlive } from '../../src/bridge/processGroup.js';
import { startRun, type Run, type RunSetup } from '../../src/bridge/run.js';
import type { WirePlan } from '../../src/bridge/wirePlan.js';
import type { RunEvent } from '../../src/bridge/events.js';
import { WATCH_LIMITS } from '../../src/bridge/watchdog.js';
import { FpdtError } from '../../src/spec/errors.js';

export const ECHO_PATH = join(PACKAGE_ROOT, 'python', 'tests');

export function wirePlan(header: Readonly<Record<string, unknown>> = {}, numRanks = 2): WirePlan {
  const text = JSON.stringify({ kind: 'executionPlan', version: 2, device: 'cpu', ...header });
  const raw = new Uint8Array([1, 2, 3]);
  const digest = createHash('sha256').update(text).update(raw).digest('hex');
  const columns = [{ name: 'opKind', dtype: 'uint8', data: deflateSync(raw) }] as const;
  return { digest, device: 'cpu', numRanks, header: Buffer.from(text), prose: Buffer.from('{}'), columns };
}

/** `data` is the fault the echo session shall have, see echo_session.py. */
export function echoSetup(data: string, changes: Partial<RunSetup> = {}): RunSetup {
  return {
    plan: wirePlan(),
    options: {
      data,
      dataOptions: null,
      weights: null,
      export: null,
      dumpGrads: null,
      copyMode: null,
      poison: false,
      seed: null,
      diskFolder: null,
      diskDirect: null,
      recordLayers: 0,
      traceSteps: [],
      traceFolder: null,
      checkpoint: null,
      resume: null,
      onNonFinite: null,
      evaluation: null,
    },
    numSteps: 3,
    python: resolvePython(),
    worker: 'echo_worker',
    environment: { ...process.env, PYTHONPATH: ECHO_PATH },
    packageVersion: '0.1.0',
    remarks: [],
    limits: WATCH_LIMITS,
    ...changes,
  };
}

export async function runEcho(data: string, changes: Partial<RunSetup> = {}): Promise<Run> {
  return startRun(echoSetup(data, changes));
}

/** The error a run fails with, after checking that no process of it is left. */
export async function errorOf(run: Run): Promise<FpdtError> {
  const error: unknown = await run.result.then(
    () => new Error('the run did not fail'),
    (reason: unknown) => reason,
  );
  if (run.pids.some(isGroupAlive)) throw new Error('processes are left');
  if (error instanceof FpdtError) return error;
  throw error;
}

export async function collect(run: Run): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of run) events.push(event);
  return events;
}

/** Reads events until each of the conditions has been met by one, in any order. */
export async function waitFor(run: Run, ...conditions: ((event: RunEvent) => boolean)[]): Promise<void> {
  const events = run[Symbol.asyncIterator]();
  for (let open = conditions; open.length > 0; ) {
    const { done, value } = await events.next();
    if (done === true) throw new Error('the run ended first');
    open = open.filter((is) => !is(value));
  }
}
