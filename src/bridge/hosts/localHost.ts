/** All ranks on this host, as children of this process. */

import { stopGroups } from '../killLadder.js';
import { freePort, LOCALHOST, rankEnvironment } from '../rankEnvironment.js';
import { startRank } from '../ranks.js';
import { RankSockets } from '../rankSockets.js';
import { type HostsListener, type RankHosts, type RanksSetup, workerArguments } from './rankHosts.js';

export async function openLocalHost(setup: RanksSetup, listener: HostsListener): Promise<RankHosts> {
  const sockets = await RankSockets.open(listener);
  const masterPort = await freePort().catch(async (error: unknown) => {
    await sockets.close();
    throw error;
  });
  const { numRanks, device, python, environment } = setup;
  const ranks = Array.from({ length: numRanks }, (_, rank) => {
    const place = { rank, localRank: rank, numRanks, device, masterAddress: LOCALHOST, masterPort };
    return startRank({
      rank,
      python,
      arguments: workerArguments(setup, sockets),
      environment: rankEnvironment(place, environment),
      onLine: (stream, line) => listener.onLine(rank, stream, line),
    });
  });
  const groups = ranks.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  return { link: sockets, ranks, stop: (ask) => stopGroups(groups, ask) };
}
