/** Judges facts of a machine: what is there, what of it holds a run back, and what to change. */
import { formatBytes } from '../spec/sizes.js';
import { type Check, fine, warning } from './check.js';
import { hostShare } from './cluster.js';
import { numUsableCpus } from './derived.js';
import type { Limit, MachineFacts } from './facts.js';
import { gpuChecks } from './gpuChecks.js';

export function machineChecks(facts: MachineFacts): readonly Check[] {
  return [cpuCheck(facts), ...numaChecks(facts), memoryCheck(facts), memlockCheck(facts), hugePageCheck(facts), ...gpuChecks(facts)];
}

/** A rank issues its ops from one CPU, and copies and collectives have threads of their own. */
function cpuCheck(facts: MachineFacts): Check {
  const { cpus, cgroup, gpus, unknown } = facts;
  const usable = numUsableCpus(facts);
  const found = [
    cpus.allowed === null ? `not known: ${unknown['cpus.allowed']}` : `${cpus.allowed} allowed`,
    ...(cpus.online === null || cpus.online === cpus.allowed ? [] : [`${cpus.online} online`]),
    ...(typeof cgroup.cpuLimit === 'number' ? [`the control group gives the time of ${Number(cgroup.cpuLimit.toFixed(2))}`] : []),
  ].join(', ');
  if (usable === null || usable >= gpus.length) return fine('cpus', found);
  return warning('cpus', found, `ranks on ${gpus.length} GPUs want a CPU each: allow this process ${gpus.length} or more`);
}

function numaChecks({ numaNodes, unknown }: MachineFacts): readonly Check[] {
  if (unknown['numaNodes'] !== undefined) return [fine('numa', `not known: ${unknown['numaNodes']}`)];
  return numaNodes.map(({ node, cpus, memoryTotalBytes }) =>
    fine(`numa ${node}`, `CPUs ${cpus ?? 'not known'}, memory ${memoryTotalBytes === null ? 'not known' : formatBytes(memoryTotalBytes)}`),
  );
}

function memoryCheck(facts: MachineFacts): Check {
  const { totalBytes, availableBytes } = facts.memory;
  if (totalBytes === null) return fine('memory', `not known: ${facts.unknown['memory.totalBytes']}`);
  const limit = facts.cgroup.memoryLimitBytes;
  const available = availableBytes === null ? '' : `, ${formatBytes(availableBytes)} available`;
  const found = `${formatBytes(totalBytes)}${available}`;
  if (typeof limit !== 'number' || limit >= totalBytes) return fine('memory', found);
  return warning(
    'memory',
    `${found}; the control group is limited to ${formatBytes(limit)}`,
    'a run beyond that limit is killed: plan with --host-bytes below it (`fpdt calibrate --facts` does), or raise it (docker --memory)',
  );
}

/** Of the largest pinned arena that `fpdt calibrate --facts` would let a plan have. Without a GPU nothing is pinned. */
function memlockCheck(facts: MachineFacts): Check {
  const { softBytes } = facts.memlock;
  if (softBytes === null) return fine('memlock', `not known: ${facts.unknown['memlock.softBytes']}`);
  const arenaBytes = facts.gpus.length === 0 ? null : (hostShare(facts, facts.gpus.length)?.hostBytes ?? null);
  if (arenaBytes === null || softBytes === 'unlimited' || softBytes >= arenaBytes) return fine('memlock', formatLimit(softBytes));
  return warning(
    'memlock',
    `${formatLimit(softBytes)}, less than a pinned arena of ${formatBytes(arenaBytes)} a rank`,
    'where the driver keeps to it the arena is not pinned and InfiniBand does not start: ulimit -l unlimited (docker --ulimit memlock=-1)',
  );
}

function formatLimit(limit: Limit): string {
  return limit === 'unlimited' ? limit : formatBytes(limit);
}

function hugePageCheck({ memory }: MachineFacts): Check {
  const { hugePageBytes, numHugePages, numFreeHugePages, transparentHugePages } = memory;
  const reserved =
    numHugePages === null || hugePageBytes === null
      ? 'not known'
      : `${numHugePages} of ${formatBytes(hugePageBytes)} reserved, ${numFreeHugePages ?? 'unknown'} of them free`;
  return fine('huge pages', `${reserved}; transparent ones: ${transparentHugePages ?? 'not known'}`);
}
