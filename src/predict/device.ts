/** What the simulator knows of a device. */
import { DUPLEX_STREAMS } from '../catalog/pools.js';
import type { ClusterSpec } from '../spec/types.js';
import type { Duplex } from './duplexRun.js';

export interface Device {
  /** One thread executes all streams, as on the CPU: nothing overlaps. */
  readonly serial: boolean;
  /** Where copies of both directions share a link. */
  readonly duplex?: Duplex;
}

/** `streams` are the plan's. */
export function deviceOf({ device, rates }: Pick<ClusterSpec, 'device' | 'rates'>, streams: readonly string[]): Device {
  const { h2dBytes, d2hBytes, duplexBytes } = rates;
  const slowdown = duplexBytes > 0 ? (h2dBytes + d2hBytes) / duplexBytes : 1;
  const [one, other] = DUPLEX_STREAMS.map((stream) => streams.indexOf(stream));
  if (one === undefined || other === undefined || one < 0 || other < 0 || slowdown <= 1) return { serial: device === 'cpu' };
  return { serial: device === 'cpu', duplex: { streams: [one, other], slowdown } };
}
