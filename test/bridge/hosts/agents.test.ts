/** Agents with the echo worker: everything between two hosts but the network. */
import { expect, describe, test } from 'vitest';
import { readFileSync } from 'node:fs';
import { collect, errorOf, waitFor } from '../echoRun.js';
import { PATIENCE_MS } from '../patience.js';
import { openHosts, runOnHosts } from './agents.js';

const HOSTS = ['localhost', '127.0.0.2'];

describe('agents', { timeout: PATIENCE_MS }, () => {
  test('run the ranks of their hosts, in place, and pass on all that they say', async () => {
    const run = await runOnHosts('ok', HOSTS, 2);
    const events = await collect(run);
    const started = events.flatMap((event) => (event.type === 'rank' && event.state === 'started' ? [event.detail] : []));
    expect(started.map((detail) => detail.replace(/\d+/, 'N'))).toEqual([
      ...['pid N on localhost', 'pid N on localhost'],
      ...['pid N on 127.0.0.2', 'pid N on 127.0.0.2'],
    ]);
    expect((await run.result).steps).toHaveLength(3);
    expect(events.filter(({ type }) => type === 'telemetry').length).toBeGreaterThan(0);
    const lines = events.flatMap((event) => (event.type === 'log' && event.rank === 3 ? [event.line] : []));
    expect(lines).toContain('echo session of rank 3 closed');
  });

  test('a rank that dies ends the run of all, by name', async () => {
    const error = await errorOf(await runOnHosts('exit@1:1', HOSTS));
    expect(error).toMatchObject({ code: 'rank-died', message: expect.stringMatching(/^rank 1: exited with code 17 \(phase stepping/) });
  });

  test('a host that cannot be reached is named before a rank is started', async () => {
    await expect(runOnHosts('ok', ['localhost', 'unreachable'])).rejects.toMatchObject({
      code: 'host-lost',
      message: 'host unreachable: its agent exited with code 255: ssh: connect to host unreachable port 22: No route to host',
    });
  });

  test('an agent that dies takes its ranks with it, and the run', async () => {
    const run = await runOnHosts('hang@1:0', HOSTS);
    await waitFor(run, (event) => event.type === 'log' && event.line === 'hanging');
    process.kill(parentOf(run.pids[1] ?? 0), 'SIGKILL');
    expect(await errorOf(run)).toMatchObject({ code: 'host-lost', message: 'host 127.0.0.2: its agent was killed by SIGKILL' });
  });

  test('an abort ends the start', async () => {
    const aborting = new AbortController();
    const hosts = await openHosts(HOSTS);
    const starting = runOnHosts('ok', HOSTS, 1, { openHosts: hosts, startSignal: aborting.signal });
    aborting.abort('interrupted');
    await expect(starting).rejects.toMatchObject({ code: 'run-aborted', message: 'run aborted: interrupted' });
  });
});

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}
