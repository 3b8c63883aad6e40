/** Runs of the echo worker on hosts that are all this one: agents, sockets and processes as between hosts, without ssh. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hostsOf, type HostsOptions } from '../../../src/bridge/hosts/hostsOptions.js';
import type { OpenHosts } from '../../../src/bridge/hosts/rankHosts.js';
import { startRun, type Run, type RunSetup } from '../../../src/bridge/run.js';
import { echoSetup, wirePlan } from '../echoRun.js';
import { makeFolder } from '../folder.js';
import { AGENT, ENVIRONMENT, SHELL } from './shell.js';

/** `names` with as many ranks each. */
export async function openHosts(names: readonly string[], ranksPerNode = 1, options: HostsOptions = {}): Promise<OpenHosts | undefined> {
  const hostfile = join(await makeFolder(), 'hosts');
  writeFileSync(hostfile, names.map((name) => `${name} slots=${ranksPerNode}\n`).join(''));
  const cluster = { numRanks: names.length * ranksPerNode, ranksPerNode };
  const all = { hostfile, ssh: SHELL, agent: AGENT, ...options };
  return hostsOf({ cluster } as Parameters<typeof hostsOf>[0], all, undefined, ENVIRONMENT);
}

export async function runOnHosts(data: string, names: readonly string[], ranksPerNode = 1, changes: Partial<RunSetup> = {}): Promise<Run> {
  const setup = echoSetup(data, { plan: wirePlan({}, names.length * ranksPerNode), openHosts: await openHosts(names, ranksPerNode) });
  return startRun({ ...setup, ...changes });
}
