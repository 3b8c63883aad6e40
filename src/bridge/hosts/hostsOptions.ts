/** Where a run's ranks are to be, as a user says it, and what that comes to before anything is started. */

import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../package.js';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { FpdtError } from '../../spec/errors.js';
import type { Environment } from '../rankEnvironment.js';
import { addressTowards, ownAddress } from './addresses.js';
import { exportedEnvironment } from './exportedEnvironment.js';
import { filterHosts, parseHostfile } from './hostfile.js';
import { checkNumHosts, numNodes, type PlacedNode, placeRanks } from './placement.js';
import type { OpenHosts } from './rankHosts.js';
import { openRemoteHosts, type RemoteSetup } from './remoteHosts.js';
import { DEFAULT_SRUN, DEFAULT_SSH, startBySrun, startBySsh } from './starters.js';

export interface HostsOptions {
  /** DeepSpeed's file of hosts and their slots: ranks go there, by ssh; left out: all are on this host. */
  readonly hostfile?: string | undefined;
  /** Hosts and slots of it that are used: `worker-0@worker-1:0,2`. */
  readonly include?: string | undefined;
  /** Those that are not. */
  readonly exclude?: string | undefined;
  /** Command that runs another on a host; default: ssh that never asks. */
  readonly ssh?: string | undefined;
  /** Ranks go to the hosts of the Slurm allocation that this process is in. */
  readonly srun?: boolean | undefined;
  /** In place of `srun`. */
  readonly srunCommand?: string | undefined;
  /** Of this host, for the others; left out: what a packet to each of them would come from. */
  readonly address?: string | undefined;
  /** Command line of an agent on another host; default: this package's, at the same path as here. */
  readonly agent?: readonly string[] | undefined;
}

const OF_HOSTFILE = ['include', 'exclude', 'ssh'] as const;
const DEFAULT_AGENT = [process.execPath, join(PACKAGE_ROOT, 'dist', 'cli', 'main.js'), 'agent'];

/** Undefined for this host alone. Throws FpdtError for a hostfile that cannot be read, or whose hosts the plan does not fit. */
export function hostsOf(
  plan: Pick<ExecutionPlan, 'cluster'>,
  options: HostsOptions,
  python: string | undefined,
  environment: Environment,
): OpenHosts | undefined {
  check(options);
  if (options.hostfile === undefined && options.srun !== true) return undefined;
  const exported = exportedEnvironment(environment);
  const agent = options.agent ?? DEFAULT_AGENT;
  const common = { python: python ?? null, exported };
  if (options.hostfile === undefined) {
    const nodes = slurmNodes(plan, environment);
    return async (setup, listener) => openRemoteHosts({ ...common, ...(await bySrun(nodes, options, agent)) }, setup, listener);
  }
  const nodes = placeRanks(plan.cluster, filterHosts(readHostfile(options.hostfile), options.include, options.exclude));
  return async (setup, listener) => openRemoteHosts({ ...common, ...(await bySsh(nodes, options, agent)) }, setup, listener);
}

function check({ hostfile, srun, ...options }: HostsOptions): void {
  const needing = hostfile === undefined ? OF_HOSTFILE.find((name) => options[name] !== undefined) : undefined;
  if (needing !== undefined) {
    throw new FpdtError(`--${needing} is about the hosts of a hostfile`, {
      code: 'usage',
      hint: `give --hostfile, or leave --${needing} out`,
    });
  }
  if (hostfile === undefined || srun !== true) return;
  throw new FpdtError('--hostfile and Slurm both say where the ranks are to be', { code: 'usage', hint: 'leave one of them out' });
}

function readHostfile(path: string): ReturnType<typeof parseHostfile> {
  if (!existsSync(path)) throw unreadable(path, 'there is no such file');
  // Until someone writes into it nothing could stop this; what a shell makes of <(command) is a link.
  if (lstatSync(path).isFIFO()) throw unreadable(path, 'it is a FIFO');
  try {
    return parseHostfile(readFileSync(path, 'utf8'), path);
  } catch (error) {
    throw error instanceof FpdtError ? error : unreadable(path, (error as Error).message);
  }
}

function unreadable(path: string, why: string): FpdtError {
  return new FpdtError(`cannot read the hostfile ${path}: ${why}`, {
    code: 'hostfile',
    hint: 'give a file with a line such as `worker-1 slots=8` a host',
  });
}

/** Their names are Slurm's affair: agents say which they are. */
function slurmNodes({ cluster }: Pick<ExecutionPlan, 'cluster'>, environment: Environment): readonly PlacedNode[] {
  const numHosts = Number(environment['SLURM_JOB_NUM_NODES'] ?? environment['SLURM_NNODES']);
  if (!Number.isSafeInteger(numHosts)) {
    throw new FpdtError('this process is in no Slurm allocation: SLURM_JOB_NUM_NODES is not set', {
      code: 'no-allocation',
      hint: 'submit the run with --slurm, or run this under salloc',
    });
  }
  checkNumHosts(cluster, numHosts);
  const slots = Array.from({ length: cluster.ranksPerNode }, (_, slot) => slot);
  return placeRanks(
    cluster,
    Array.from({ length: numNodes(cluster) }, (_, node) => ({ host: `node ${node}`, slots })),
  );
}

type Way = Pick<RemoteSetup, 'nodes' | 'addresses' | 'start'>;

async function bySsh(nodes: readonly PlacedNode[], { ssh = DEFAULT_SSH, address }: HostsOptions, agent: readonly string[]): Promise<Way> {
  const found = await Promise.all(nodes.map(async ({ host }) => address ?? (await addressTowards(host)) ?? (await ownAddress())));
  return {
    nodes,
    addresses: found,
    start: (tickets, onLine) =>
      tickets.map((ticket, node) => {
        const host = nodes[node]?.host ?? '';
        return startBySsh(ssh, host, agent, JSON.stringify(ticket), (line) => onLine(host, line));
      }),
  };
}

async function bySrun(nodes: readonly PlacedNode[], options: HostsOptions, agent: readonly string[]): Promise<Way> {
  const { srunCommand = DEFAULT_SRUN, address } = options;
  const own = address ?? (await ownAddress());
  return {
    nodes,
    addresses: nodes.map(() => own),
    // One ticket for all: Slurm tells each agent its number.
    start: ([ticket], onLine) => [
      startBySrun(srunCommand, nodes.length, agent, JSON.stringify({ ...ticket, node: null }), (line) => onLine('srun', line)),
    ],
  };
}
