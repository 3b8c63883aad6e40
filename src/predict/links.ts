/** Seconds of collectives over the links of a cluster: inside a node, and between nodes. */
import type { ParallelLayout } from '../spec/parallelLayout.js';
import type { ClusterSpec } from '../spec/types.js';

type Links = Pick<ClusterSpec, 'numRanks' | 'ranksPerNode' | 'rates'>;

/**
 * All-to-all of `numMessages` over the sequence group, in which a rank sends each other one an equal part of `bytes` and keeps its own.
 * Peers of its own node are reached beside those of others; the rank with the fewest at home is the last.
 */
export function exchangeSeconds(bytes: number, numMessages: number, links: Links, { sequenceGroups }: ParallelLayout): number {
  const [group = []] = sequenceGroups;
  if (group.length === 1) return 0;
  const node = (rank: number): number => Math.floor(rank / links.ranksPerNode);
  const peersAtHome = group.map((rank) => group.filter((other) => other !== rank && node(other) === node(rank)).length);
  const inside = Math.min(...peersAtHome);
  const outside = group.length - 1 - inside;
  const { commBytes, interNodeBytes } = links.rates;
  const part = bytes / group.length;
  const most = (part * Math.max(...peersAtHome)) / commBytes;
  return numMessages * latencySeconds(outside > 0, links) + Math.max(most, (part * outside) / interNodeBytes);
}

/** What ZeRO's collectives do, by the name of their rate inside a node. */
type Ring = 'gatherBytes' | 'reduceBytes';

/**
 * Gather or reduce-scatter of `bytes` over all ranks. A ring sends (N - 1) / N of them over each link; those between nodes carry the
 * same for a whole node, over the adapters of all its ranks (one ring for each, as NCCL makes them).
 */
export function ringSeconds(bytes: number, links: Links, ring: Ring): number {
  const { numRanks, ranksPerNode, rates } = links;
  if (numRanks === 1) return 0;
  const numNodes = Math.ceil(numRanks / ranksPerNode);
  const perRank = ranksPerNode === 1 ? 0 : (bytes * (numRanks - 1)) / numRanks / rates[ring];
  const perNode = (bytes * (numNodes - 1)) / numNodes / (Math.min(numRanks, ranksPerNode) * rates.interNodeBytes);
  return latencySeconds(numNodes > 1, links) + Math.max(perRank, perNode);
}

function latencySeconds(leavesNode: boolean, { rates }: Links): number {
  return leavesNode ? Math.max(rates.commLatencySeconds, rates.interNodeLatencySeconds) : rates.commLatencySeconds;
}
