/** The one place that names memory pools: what a rank has, how full each may get, and the links between them with their rates. */
import type { Link, NamedPool, Pool, PoolKind } from '../spec/pools.js';
import type { ClusterSpec, Rates } from '../spec/types.js';

interface PoolRow {
  readonly name: string;
  readonly kind: PoolKind;
  /** For messages: `HBM does not fit`. */
  readonly label: string;
  readonly capacityBytes: (cluster: ClusterSpec) => number;
}

interface LinkRow extends Link {
  readonly bytesPerSecond: (rates: Rates) => number;
}

const POOLS: readonly PoolRow[] = [
  { name: 'hbm', kind: 'device', label: 'HBM', capacityBytes: ({ hbmBytes }) => hbmBytes },
  { name: 'host', kind: 'pinned', label: 'host memory', capacityBytes: ({ hostBytes }) => hostBytes },
  { name: 'disk', kind: 'file', label: 'disk', capacityBytes: ({ diskBytes }) => diskBytes },
];

export const POOL_NAMES: readonly string[] = POOLS.map(({ name }) => name);

const LINKS: readonly LinkRow[] = [
  { from: 'host', to: 'hbm', stream: 'h2d', bytesPerSecond: ({ h2dBytes }) => h2dBytes },
  { from: 'hbm', to: 'host', stream: 'd2h', bytesPerSecond: ({ d2hBytes }) => d2hBytes },
  { from: 'disk', to: 'host', stream: 'read', bytesPerSecond: ({ diskReadBytes }) => diskReadBytes },
  { from: 'host', to: 'disk', stream: 'write', bytesPerSecond: ({ diskWriteBytes }) => diskWriteBytes },
];

/** Streams that every plan has, before those of its links. */
const OWN_STREAMS: readonly string[] = ['compute', 'comm'];

/** What a rank has of a pool. `bytes` is 0: a plan fills in what it lays out. */
export interface PoolCapacity extends Pool {
  readonly capacityBytes: number;
}

/** The pools of a cluster's ranks: the device's, the host's, and a file's where there is room for one. */
export function poolsOf(cluster: ClusterSpec): readonly PoolCapacity[] {
  const pools = POOLS.map(({ name, kind, capacityBytes }) => ({ name, kind, bytes: 0, capacityBytes: capacityBytes(cluster) }));
  return pools.filter(({ capacityBytes, kind }) => capacityBytes > 0 || kind !== 'file');
}

/** The links between those pools that are there. */
export function linksOf(pools: readonly Pick<Pool, 'name'>[]): readonly Link[] {
  const has = (name: string): boolean => pools.some((pool) => pool.name === name);
  return LINKS.filter(({ from, to }) => has(from) && has(to)).map(({ from, to, stream }) => ({ from, to, stream }));
}

/** Names of all streams, `compute` first. */
export function streamsOf(links: readonly Link[]): readonly string[] {
  return [...OWN_STREAMS, ...links.map(({ stream }) => stream)];
}

/** Name of the pool that compute reads and writes. */
export function devicePool(pools: readonly NamedPool[]): string {
  const found = pools.find(({ kind }) => kind === 'device');
  if (found === undefined) throw new RangeError(`no pool is a device among ${pools.map(({ name }) => name).join(', ')}`);
  return found.name;
}

/** Bytes a second of copies on a link's stream. Throws a RangeError for a stream that is no link's. */
export function linkBytesPerSecond(stream: string, rates: Rates): number {
  const link = LINKS.find((row) => row.stream === stream);
  if (link === undefined) throw new RangeError(`no link has the stream ${stream}`);
  return link.bytesPerSecond(rates);
}

/** The two streams that share what `duplexBytes` is the sum of. */
export const DUPLEX_STREAMS: readonly [string, string] = ['h2d', 'd2h'];

/** `HBM`, for messages. */
export function poolLabel(name: string): string {
  return POOLS.find((pool) => pool.name === name)?.label ?? name;
}
