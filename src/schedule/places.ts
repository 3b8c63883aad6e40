/** Which pool is the device's, and which way data takes to it. Everything a pass knows of pools. */
import { FILE_ALIGNMENT_BYTES, type Link, type Pool } from '../spec/pools.js';

/** Every buffer starts at a multiple of this many bytes, and so does every instance of it. */
const ALIGNMENT_BYTES = 512;

export interface Places {
  /** Name of the pool that compute reads and writes. */
  readonly device: string;
  /** Name of the pool of host memory; absent where there is none. */
  readonly pinned?: string;
  /** Pools from `pool` to the device, both included. Throws a RangeError where no link leads there. */
  readonly route: (pool: string) => readonly string[];
  /** The stream of copies from one pool to another. */
  readonly streamOf: (from: string, to: string) => string;
  readonly isFile: (pool: string) => boolean;
  /** Buffers of a pool start at multiples of this; pools that exchange data with a file are aligned as the file is. */
  readonly alignment: (pool: string) => number;
}

export function placesOf(pools: readonly Pool[], links: readonly Link[]): Places {
  const device = pools.find(({ kind }) => kind === 'device');
  if (device === undefined) throw new RangeError('no pool is the device');
  const pinned = pools.find(({ kind }) => kind === 'pinned')?.name;
  const files = new Set(pools.filter(({ kind }) => kind === 'file').map(({ name }) => name));
  const routes = new Map(pools.map(({ name }) => [name, routeTo(device.name, name, links)] as const));
  return {
    device: device.name,
    ...(pinned === undefined ? {} : { pinned }),
    route: (pool) => {
      const found = routes.get(pool);
      if (found === undefined) throw new RangeError(`no link leads from ${pool} to ${device.name}`);
      return found;
    },
    streamOf: (from, to) => {
      const link = links.find((one) => one.from === from && one.to === to);
      if (link === undefined) throw new RangeError(`there is no link from ${from} to ${to}`);
      return link.stream;
    },
    isFile: (pool) => files.has(pool),
    alignment: (pool) =>
      files.has(pool) || links.some(({ from, to }) => from === pool && files.has(to)) ? FILE_ALIGNMENT_BYTES : ALIGNMENT_BYTES,
  };
}

/** Breadth first: the fewest hops. */
function routeTo(device: string, pool: string, links: readonly Link[]): readonly string[] | undefined {
  let paths: readonly (readonly string[])[] = [[pool]];
  const seen = new Set([pool]);
  while (paths.length > 0) {
    const found = paths.find((path) => path.at(-1) === device);
    if (found !== undefined) return found;
    paths = paths.flatMap((path) =>
      links.flatMap(({ from, to }) => (from === path.at(-1) && !seen.has(to) && seen.add(to) ? [[...path, to]] : [])),
    );
  }
  return undefined;
}
