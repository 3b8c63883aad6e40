/**
 * A controller to be killed: runs the echo worker for ever, on this host or through agents, and prints a line when all ranks have done a step.
 *
 *   victim.ts <ranks> <hosts; 0: no agents>
 */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hostsOf } from '../../../src/bridge/hosts/hostsOptions.js';
import { startRun } from '../../../src/bridge/run.js';
import { echoSetup, wirePlan } from '../echoRun.js';
import { AGENT, ENVIRONMENT, SHELL } from './shell.js';

const [numRanks, numHosts] = [Number(process.argv[2]), Number(process.argv[3])];
const setup = echoSetup('slow', { plan: wirePlan({}, numRanks), numSteps: 1_000_000 });
const run = await startRun({ ...setup, ...(numHosts === 0 ? {} : { openHosts: onHosts() }) });
for await (const event of run) if (event.type === 'step' && event.step.step === 0) console.log('stepping');

/** The folder goes with the one for temporary files, which whoever kills this has made. */
function onHosts() {
  const hostfile = join(mkdtempSync(join(tmpdir(), 'fpdt-hosts-')), 'hosts');
  const ranksPerNode = Math.ceil(numRanks / numHosts);
  const hosts = Array.from({ length: numHosts }, (_, host) => `127.0.0.${host + 1} slots=${ranksPerNode}\n`);
  writeFileSync(hostfile, hosts.join(''));
  return hostsOf(
    { cluster: { numRanks, ranksPerNode } } as Parameters<typeof hostsOf>[0],
    { hostfile, ssh: SHELL, agent: AGENT },
    undefined,
    ENVIRONMENT,
  );
}
