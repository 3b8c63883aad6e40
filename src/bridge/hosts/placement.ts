/** Which ranks are on which host: those of a node of the plan side by side, as it was planned. */

import { FpdtError } from '../../spec/errors.js';
import type { ClusterSpec } from '../../spec/types.js';
import type { HostSlots } from './hostfile.js';

export interface PlacedNode {
  readonly host: string;
  /** The first of its ranks; the others follow. */
  readonly firstRank: number;
  readonly numRanks: number;
  /** One for each rank; null: as the host has them. */
  readonly slots: readonly number[] | null;
}

type Ranks = Pick<ClusterSpec, 'numRanks' | 'ranksPerNode'>;

/** As many of the hosts as the plan has nodes. Throws `too-few-hosts` and `too-few-slots`. */
export function placeRanks({ numRanks, ranksPerNode }: Ranks, hosts: readonly HostSlots[]): readonly PlacedNode[] {
  checkNumHosts({ numRanks, ranksPerNode }, hosts.length);
  return hosts.slice(0, numNodes({ numRanks, ranksPerNode })).map(({ host, slots }, node) => {
    const firstRank = node * ranksPerNode;
    const wanted = Math.min(ranksPerNode, numRanks - firstRank);
    if (slots.length < wanted) {
      throw new FpdtError(`${host} has ${slots.length} slots, the plan puts ${wanted} ranks on a host`, {
        code: 'too-few-slots',
        hint: `plan with --ranks-per-node ${Math.min(...hosts.map((one) => one.slots.length))}, or give the host more slots`,
        details: { host, slots: slots.length, wanted },
      });
    }
    const used = slots.slice(0, wanted);
    const isPlain = used.every((slot, index) => slot === index);
    return { host, firstRank, numRanks: wanted, slots: isPlain ? null : used };
  });
}

export function numNodes({ numRanks, ranksPerNode }: Ranks): number {
  return Math.ceil(numRanks / ranksPerNode);
}

export function checkNumHosts(ranks: Ranks, numHosts: number): void {
  const wanted = numNodes(ranks);
  if (numHosts >= wanted) return;
  throw new FpdtError(`the plan has ${ranks.numRanks} ranks, ${ranks.ranksPerNode} on a host: ${wanted} hosts, there are ${numHosts}`, {
    code: 'too-few-hosts',
    hint: `plan for fewer ranks, or give ${wanted} hosts`,
    details: { numHosts, wanted },
  });
}
