import { describe, expect, test } from 'vitest';
import { isGroupAlive, signalGroup } from '../../src/bridge/processGroup.js';
import { TelemetryCollector } from '../../src/telemetry/collect.js';
import type { RunEvent } from '../../src/bridge/events.js';
import type { Run } from '../../src/bridge/run.js';
import { collect, echoSetup, errorOf, runEcho, waitFor, wirePlan } from './echoRun.js';
import { PATIENCE_MS } from './patience.js';

describe('a run of two ranks', { timeout: PATIENCE_MS }, () => {
  test('goes through all steps and leaves no process', async () => {
    const run = await runEcho('ok');
    const telemetry = new TelemetryCollector();
    const events = await collect(run);
    for (const event of events) telemetry.add(event);
    const result = await run.result;
    expect(result.steps.map((one) => [one.step, one.loss])).toEqual([
      [0, 10],
      [1, 9],
      [2, 8],
    ]);
    expect(result).toMatchObject({
      numRanks: 2,
      seconds: 1.5,
      tokens: 384,
      poolBytes: { hbm: 1001, host: 0 },
      memoryMeasured: true,
      idleSeconds: 0.75,
      copiedBytes: { h2d: 12, d2h: 24 },
      byKind: { attn: { count: 6, seconds: 0.75 } },
      nonFinite: [],
    });
    expect(events.at(-1)).toMatchObject({ type: 'end', outcome: { ok: true }, numDroppedEvents: 0 });
    expect(events.some((one) => one.type === 'log' && one.line === 'echo session of rank 1 closed')).toBe(true);
    expect(telemetry.summary().byKind).toMatchObject({ attn: { count: 2 * 3 * 300 } });
    expect(run.pids.filter(isGroupAlive)).toEqual([]);
  });

  test('no step starts before all ranks are ready with the plan', async () => {
    const run = await runEcho('ok');
    const types = (await collect(run)).map((one) => (one.type === 'rank' ? one.state : one.type));
    const ready = types.indexOf('ready', types.indexOf('planAccepted'));
    expect(types.filter((one) => one === 'planAccepted')).toHaveLength(2);
    expect(types.indexOf('step')).toBeGreaterThan(types.lastIndexOf('ready'));
    expect(ready).toBeGreaterThan(-1);
  });

  test('exports the model once all steps are done, and says what rank 0 wrote', async () => {
    const { options } = echoSetup('ok');
    const events = await collect(await runEcho('ok', { options: { ...options, export: 'model' } }));
    const types = events.map(({ type }) => type);
    expect(types.filter((type) => type === 'exported')).toHaveLength(1);
    expect(types.indexOf('exported')).toBeGreaterThan(types.lastIndexOf('step'));
    expect(events.find(({ type }) => type === 'exported')).toMatchObject({ folder: 'model of rank 0', numWeights: 2, bytes: 8 });
    expect(events.at(-1)).toMatchObject({ type: 'end', outcome: { ok: true } });
  });

  test('an export that fails names its phase', async () => {
    const { options } = echoSetup('export@1');
    const error = await errorOf(await runEcho('export@1', { options: { ...options, export: 'model' } }));
    expect(error.message).toBe('rank 1: OSError: no space left (phase exporting)');
  });

  test('what start-up needed is that of the rank with most', async () => {
    const run = await runEcho('ok');
    const events = await collect(run);
    expect(events.find((one) => one.type === 'ready')).toMatchObject({ loadPoolBytes: { hbm: 501 }, communicatorBytes: 71 });
    expect(await run.result).toMatchObject({ loadPoolBytes: { hbm: 501 }, communicatorBytes: 71 });
    expect((await run.result).kernels).toEqual({ attn: 'cpu_flash', copies: 'events, native' });
  });

  test('a loss that is not finite is a null with a name', async () => {
    const run = await runEcho('nan', { numSteps: 1 });
    expect(await run.result).toMatchObject({ nonFinite: ['loss'], steps: [{ loss: null }] });
  });

  test('an exception in a rank names rank, phase and step and carries its traceback and stderr', async () => {
    const error = await errorOf(await runEcho('raise@1:2'));
    expect(error.message).toBe('rank 1: ValueError: no such token in step 2 (phase stepping, step 2)');
    expect(error).toMatchObject({ code: 'rank-failed', details: { rank: 1, phase: 'stepping', step: 2 } });
    expect(error.details?.traceback).toContain('echo_session.py');
    expect(error.details?.stderrTail).toContain('ValueError: no such token in step 2');
  });

  test('a rank killed in a step ends the run', async () => {
    const run = await runEcho('hang@1:1');
    await waitFor(run, isHanging, (event) => event.type === 'step');
    process.kill(pidOf(run, 1), 'SIGKILL');
    const error = await errorOf(run);
    expect(error).toMatchObject({ code: 'rank-died', details: { rank: 1, step: 1, signal: 'SIGKILL' } });
    expect(error.message).toBe('rank 1: was killed by SIGKILL (phase stepping, step 1 or the next)');
  });

  test('a rank that leaves early ends the run', async () => {
    const error = await errorOf(await runEcho('exit@0:0'));
    expect(error).toMatchObject({ code: 'rank-died', details: { rank: 0, phase: 'stepping', step: 0, exitCode: 17 } });
  });

  test('a rank that cannot make its session ends the run', async () => {
    const error = await errorOf(await runEcho('create@0'));
    expect(error.message).toBe('rank 0: RuntimeError: no room for the arena (phase loading)');
  });

  test('a plan whose bytes do not have its digest is refused', async () => {
    const error = await errorOf(await runEcho('ok', { plan: { ...wirePlan(), digest: 'f'.repeat(64) } }));
    expect(error).toMatchObject({ code: 'plan-refused', hint: expect.stringContaining('plan again') });
  });

  test('a session that decoded another plan is refused', async () => {
    const error = await errorOf(await runEcho('digest'));
    expect(error).toMatchObject({ code: 'plan-refused', details: { phase: 'loading' } });
  });

  test('a plan of an older version is refused', async () => {
    const error = await errorOf(await runEcho('ok', { plan: wirePlan({ version: 0 }) }));
    expect(error).toMatchObject({ code: 'plan-refused', hint: expect.stringContaining('same version') });
    expect(error.message).toContain('plan version 0');
  });

  test('a Python package of another version is refused', async () => {
    const error = await errorOf(await runEcho('ok', { packageVersion: '0.2.0' }));
    expect(error).toMatchObject({ code: 'protocol-violation', hint: expect.stringContaining('same version') });
    expect(error.message).toContain('0.1.0');
  });

  test('a missing package names setup', async () => {
    const error = await errorOf(await runEcho('import'));
    expect(error).toMatchObject({ code: 'python-packages-missing', hint: expect.stringContaining('npx fpdt setup') });
    expect(error.message).toContain('torch_that_is_not_installed');
  });

  test('a worker that cannot even say hello names what is missing', async () => {
    const run = await runEcho('ok', { environment: { ...process.env, PYTHONPATH: '' } });
    expect((await errorOf(run)).details).toMatchObject({ phase: 'starting', exitCode: 1 });
  });

  test('an interpreter that does not exist is a clean error', async () => {
    const error = await errorOf(await runEcho('ok', { python: '/nowhere/python' }));
    expect(error).toMatchObject({ code: 'rank-not-started', hint: expect.stringContaining('FPDT_PYTHON') });
  });

  test('abort stops a rank that hangs in a step', async () => {
    const run = await runEcho('hang@0:1');
    await waitFor(run, isHanging);
    run.abort('Ctrl-C');
    expect(await errorOf(run)).toMatchObject({ code: 'run-aborted', message: 'run aborted: Ctrl-C' });
  });

  test('abort right after the start leaves nothing', async () => {
    const run = await runEcho('ok');
    run.abort('changed my mind');
    expect(await errorOf(run)).toMatchObject({ code: 'run-aborted' });
  });

  test('a frozen rank is killed', async () => {
    const run = await runEcho('hang@0:1');
    await waitFor(run, isHanging);
    signalGroup(pidOf(run, 1), 'SIGSTOP');
    run.abort('frozen');
    await errorOf(run);
  });

  test('a grandchild that outlives its rank is stopped', async () => {
    const run = await runEcho('child@1:0');
    await waitFor(run, (event) => event.type === 'log' && event.line.startsWith('grandchild'));
    await run.result;
    expect(run.pids.filter(isGroupAlive)).toEqual([]);
  });

  test('a step over its limit is a hang, with the stacks of the rank', async () => {
    const { limits } = echoSetup('ok');
    const error = await errorOf(await runEcho('hang@1:1', { limits: { ...limits, pingSeconds: 0.2, stepSeconds: 0.5 } }));
    expect(error).toMatchObject({ code: 'rank-hung', details: { rank: 1, step: 1 } });
    expect(error.details?.stderrTail).toContain('in run_step');
  });

  test('nobody listening does not stop the run', async () => {
    const run = await runEcho('ok', { numSteps: 40 });
    expect((await run.result).steps).toHaveLength(40);
  });

  test('iterating a failed run throws its error', async () => {
    const run = await runEcho('raise@0:0');
    await expect(collect(run)).rejects.toMatchObject({ code: 'rank-failed' });
  });
});

function isHanging(event: RunEvent): boolean {
  return event.type === 'log' && event.line === 'hanging';
}

function pidOf(run: Run, rank: number): number {
  const pid = run.pids[rank];
  if (pid === undefined) throw new Error(`rank ${rank} was not started`);
  return pid;
}
