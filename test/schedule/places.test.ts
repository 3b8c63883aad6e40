import { describe, expect, it } from 'vitest';
import type { Link, Pool } from '../../src/spec/pools.js';
import { placesOf } from '../../src/schedule/places.js';
import { PLACES } from './context.js';

describe('places', () => {
  it('know the device and the way there from each pool', () => {
    expect(PLACES.device).toBe('hbm');
    expect(['hbm', 'host', 'disk'].map(PLACES.route)).toEqual([['hbm'], ['host', 'hbm'], ['disk', 'host', 'hbm']]);
  });

  it('take the fewest hops, and refuse a pool that no link leaves', () => {
    const pools: readonly Pool[] = ['gpu', 'near', 'far', 'island'].map((name) => ({
      name,
      kind: name === 'gpu' ? 'device' : 'pinned',
      bytes: 0,
    }));
    const links: readonly Link[] = [
      { from: 'far', to: 'near', stream: 'a' },
      { from: 'near', to: 'far', stream: 'b' },
      { from: 'near', to: 'gpu', stream: 'c' },
      { from: 'far', to: 'gpu', stream: 'd' },
      { from: 'gpu', to: 'island', stream: 'e' },
    ];
    const places = placesOf(pools, links);
    expect(places.route('far')).toEqual(['far', 'gpu']);
    expect(places.route('near')).toEqual(['near', 'gpu']);
    expect(() => places.route('island')).toThrow('no link leads from island to gpu');
    expect(() => placesOf(pools.slice(1), links)).toThrow('no pool is the device');
  });

  it('name the stream of each link, and refuse a copy that no link makes', () => {
    const pairs = [
      ['host', 'hbm'],
      ['hbm', 'host'],
      ['disk', 'host'],
      ['host', 'disk'],
    ] as const;
    expect(pairs.map(([from, to]) => PLACES.streamOf(from, to))).toEqual(['h2d', 'd2h', 'read', 'write']);
    expect(() => PLACES.streamOf('disk', 'hbm')).toThrow('there is no link from disk to hbm');
  });

  it('align pools that exchange data with a file as the file is', () => {
    expect(['hbm', 'host', 'disk'].map(PLACES.alignment)).toEqual([512, 4096, 4096]);
    expect(['hbm', 'host', 'disk'].map(PLACES.isFile)).toEqual([false, false, true]);
  });
});
