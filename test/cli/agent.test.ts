/** `fpdt agent` without what starts it. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { VERSION } from '../../src/package.js';

const TICKET = {
  ...{ kind: 'fpdtAgentTicket', version: VERSION, run: 'run_1', endpoint: 'tcp://127.0.0.1:9', node: null, folder: '/' },
  ...{ serverKey: 'x'.repeat(40), publicKey: 'x'.repeat(40), secretKey: 'x'.repeat(40) },
};

test.each([
  ['', /it was given no ticket/, 2],
  ['hello\n', /what it was given is no ticket/, 2],
  [`${JSON.stringify({ ...TICKET, version: '0.0.1', more: 1 })}\n`, /the controller has fpdt 0\.0\.1, this host /, 1],
  [`${JSON.stringify(TICKET)}\n`, /neither in its ticket nor in SLURM_NODEID/, 2],
  [`${JSON.stringify({ ...TICKET, node: 0, folder: '/nowhere' })}\n`, /this host has no folder \/nowhere/, 1],
])('an agent that is told %j says what is wrong', (input, message, code) => {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', 'agent'], { input, encoding: 'utf8' });
  expect(stderr).toMatch(message);
  expect(status).toBe(code);
});
