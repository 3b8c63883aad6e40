/** The hosts of a run's ranks, this one or others: a way to talk to ranks, their processes, and one end for all of them. */

import type { LogStream, RankProcess } from '../ranks.js';
import type { RankLink, RankListener } from '../rankSockets.js';
import type { Environment } from '../rankEnvironment.js';

export interface RanksSetup {
  readonly run: string;
  readonly numRanks: number;
  readonly device: 'cpu' | 'cuda';
  readonly python: string;
  /** Python module of the worker. */
  readonly worker: string;
  readonly environment: Environment;
  /** Ends the start of ranks: until they are started there is nothing else to abort. */
  readonly signal?: AbortSignal | undefined;
}

export interface HostsListener extends RankListener {
  readonly onLine: (rank: number, stream: LogStream, line: string) => void;
  /** A line of what is beside the ranks. */
  readonly onRemark: (line: string) => void;
  /** A host is gone with its ranks, as far as anybody can tell. */
  readonly onHostLost: (host: string, reason: string, hint: string) => void;
}

export interface RankHosts {
  readonly link: RankLink;
  /** In the order of ranks. */
  readonly ranks: readonly RankProcess[];
  /** Returns when no process is left. `ask` requests an orderly end of those that are connected, and says whether there are any. Throws `process-left`. */
  stop(ask: () => boolean): Promise<void>;
}

/** Starts the ranks; what it had begun is undone where it throws. */
export type OpenHosts = (setup: RanksSetup, listener: HostsListener) => Promise<RankHosts>;

export function workerArguments(
  { worker, run }: Pick<RanksSetup, 'worker' | 'run'>,
  { controlEndpoint, telemetryEndpoint }: { readonly controlEndpoint: string; readonly telemetryEndpoint: string },
): readonly string[] {
  return ['-m', worker, '--controller', controlEndpoint, '--telemetry', telemetryEndpoint, '--run', run];
}
