/** What the coordinator of a run is given, and what it keeps of a rank. */
import type { RankState, RunEvent } from './events.js';
import type { Failure } from './failure.js';
import { type Body, type MessageType, PROTOCOL_VERSION } from './protocol.js';
import type { StartFacts } from './runResult.js';

export interface Host {
  readonly send: <T extends MessageType>(rank: number, type: T, body: Body<T>, frames?: readonly Uint8Array[]) => void;
  readonly emit: (event: Exclude<RunEvent, { type: 'end' }>) => void;
  readonly onReady: (facts: StartFacts) => void;
  readonly fail: (failure: Failure) => void;
  /** Whether the evaluation after so many steps was due in a life of this run that ended before its answers were here. */
  readonly lacksEvaluation: (step: number) => boolean;
  /** Every rank has said bye. */
  readonly complete: () => void;
}

export interface RankView {
  state: Exclude<RankState, 'exited'>;
  numStepsDone: number;
  exported: Body<'exported'> | null;
  /** The first step that it will not run, once it was asked to stop. */
  stoppedBefore: number | null;
}

export function remark(line: string): Extract<RunEvent, { type: 'log' }> {
  return { type: 'log', rank: null, stream: 'stderr', line };
}

/** What is wrong with the version of a rank, where something is. */
export function otherVersion({ protocol: [oldest, newest], version }: Body<'hello'>, packageVersion: string): string | undefined {
  if (oldest <= PROTOCOL_VERSION && newest >= PROTOCOL_VERSION && version === packageVersion) return undefined;
  const found = `Python package ${version} with protocols ${oldest} to ${newest}`;
  return `runs ${found}, expected ${packageVersion} with protocol ${PROTOCOL_VERSION}`;
}
