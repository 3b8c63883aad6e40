import { describe, expect, it } from 'vitest';
import { type Schedule, sectionNamed } from '../../src/schedule/schedule.js';
import type { PolicyName } from '../../src/spec/types.js';
import { type Small, smallSchedule } from './context.js';

type Counts = Readonly<Record<string, number>>;

/** Chunks that a section copies, by pools and tensor: `host>hbm k`; with `copies: true` the number of copies instead. */
function moved({ sections, buffers }: Schedule, section: string, { copies = false } = {}): Counts {
  const counts: Record<string, number> = {};
  for (const { kind, reads, writes } of sectionNamed(sections, section).ops) {
    if (kind !== 'copy') continue;
    for (const [n, read] of reads.entries()) {
      const [from, to] = [buffers[read.buffer], buffers[writes[n]?.buffer ?? -1]];
      const key = `${from?.pool}>${to?.pool} ${from?.name.replace(/[@].*/, '')}`;
      const tokens = from?.name.startsWith('x') || from?.name.startsWith('dx') ? LOCAL_CHUNK : CHUNK;
      counts[key] = (counts[key] ?? 0) + (copies ? 1 : (read.rows.end - read.rows.start) / tokens);
    }
  }
  return counts;
}

const CHUNK = 64;
const LOCAL_CHUNK = 32;

const copied = (policy: PolicyName, numChunks: number, section: string, more: Small = {}): Counts =>
  moved(smallSchedule(policy, numChunks, more), section);

/** Of u chunks, in tiles of any size: a chunk of queries meets the keys and values of all before it. */
function fpdtForward(u: number): Counts {
  const past = (u * (u - 1)) / 2;
  return { 'host>hbm x': u, 'hbm>host x': u, 'hbm>host k': u - 1, 'hbm>host v': u - 1, 'host>hbm k': past, 'host>hbm v': past };
}

/** Of u chunks; summed over the tiles of keys, `met` chunks of queries come to a tile and `unfinished` go on to another. */
function fpdtBackward(u: number, met: number, unfinished: number): Counts {
  const past = (u * (u - 1)) / 2;
  return {
    'host>hbm x': 3 * u,
    'hbm>host k': u,
    'hbm>host v': u,
    'host>hbm k': past + u,
    'host>hbm v': past + u,
    'hbm>host q': u,
    'hbm>host o': u,
    'hbm>host lse': u,
    'hbm>host do': u,
    'host>hbm q': met,
    'host>hbm o': met + u,
    'host>hbm lse': met,
    'host>hbm do': met,
    'hbm>host dq': unfinished,
    'host>hbm dq': unfinished,
  };
}

/** Counts that are not 0. */
function some(counts: Counts): Counts {
  return Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
}

function sum(count: number, of: (i: number) => number): number {
  return Array.from({ length: count }, (_, i) => of(i)).reduce((total, value) => total + value, 0);
}

describe('copies of a layer', () => {
  it.each([2, 4, 8, 16])('fpdt with %i chunks moves what its formula says', (u) => {
    const past = (u * (u - 1)) / 2;
    const pairs = (u * (u + 1)) / 2;
    expect(copied('fpdt', u, 'layerForward')).toEqual(fpdtForward(u));
    expect(copied('fpdt', u, 'layerBackward')).toEqual(fpdtBackward(u, pairs, past));
  });

  it.each([2, 3, 4, 8].flatMap((g) => [4, 8, 9, 11].filter((u) => u >= g).map((u) => [u, g] as const)))(
    'fpdt with %i chunks in tiles of %i: as many chunks of k and v forward, fewer of everything else, in fewer copies',
    (u, g) => {
      const schedule = smallSchedule('fpdt', u, { kvTileChunks: g });
      expect(moved(schedule, 'layerForward')).toEqual(fpdtForward(u));
      // A chunk of queries fetches the tiles before its own, and of its own what lies before it.
      const fetches = sum(u, (chunk) => Math.floor(chunk / g) + (chunk % g > 0 ? 1 : 0));
      expect(moved(schedule, 'layerForward', { copies: true })).toMatchObject({ 'host>hbm k': fetches, 'host>hbm v': fetches });

      const numTiles = Math.ceil(u / g);
      const met = sum(numTiles, (tile) => u - tile * g);
      const unfinished = sum(numTiles, (tile) => Math.max(0, u - (tile + 1) * g));
      expect(moved(schedule, 'layerBackward')).toEqual(some(fpdtBackward(u, met, unfinished)));
      expect(moved(schedule, 'layerBackward', { copies: true })).toMatchObject({ 'host>hbm k': fetches + numTiles });
    },
  );

  it.each(['layerForward', 'layerBackward'] as const)('auto with all resident copies nothing in %s', (section) => {
    expect(copied('auto', 8, section)).toEqual({});
  });

  it('auto with outputs and checkpoints on the host moves each of them once a direction, and x for each of its three uses', () => {
    const more = { attentionOutput: 'host', checkpoints: 'host' };
    expect(copied('auto', 8, 'layerForward', more)).toEqual({
      'host>hbm x': 8,
      'hbm>host x': 8,
      'hbm>host o.saved': 8,
      'hbm>host lse.saved': 8,
    });
    expect(copied('auto', 8, 'layerBackward', more)).toEqual({ 'host>hbm x': 16, 'host>hbm o.saved': 8, 'host>hbm lse.saved': 8 });
  });

  it('what is saved on disk takes two hops, and each byte each of them once a direction', () => {
    const more = { attentionOutput: 'disk', checkpoints: 'disk', segmentLayers: 2 };
    const [x, saved, u] = [{ 'disk>host x': 8, 'host>hbm x': 8 }, { 'disk>host o.saved': 8, 'host>hbm o.saved': 8 }, 8];
    const lse = { 'disk>host lse.saved': u, 'host>hbm lse.saved': u };
    const back = (name: string): Counts => ({ [`hbm>host ${name}`]: u, [`host>disk ${name}`]: u });
    expect(copied('auto', u, 'embedForward', more)).toEqual(back('x'));
    expect(copied('auto', u, 'layerForward', more)).toEqual({ ...x, ...back('x'), ...back('o.saved'), ...back('lse.saved') });
    expect(copied('auto', u, 'layerRebuild', more)).toEqual({ ...x, ...back('x'), ...saved });
    expect(copied('auto', u, 'layerBackward', more)).toEqual({ 'disk>host x': 2 * u, 'host>hbm x': 2 * u, ...saved, ...lse });
    expect(copied('auto', u, 'lossForward', more)).toEqual(x);
  });

  it('each chunk that goes to a file is an instance of its own, aligned as the file is, and so are the slots it passes through', () => {
    const { buffers } = smallSchedule('auto', 4, { attentionOutput: 'disk', checkpoints: 'disk', chunkTokens: 10, localChunkTokens: 5 });
    const saved = buffers.filter(({ name }) => name.includes('@disk'));
    expect(saved.map(({ name }) => name).sort()).toEqual(
      ['lse.saved', 'o.saved', 'x'].flatMap((name) => [`${name}@disk`, `${name}@disk.hbm`, `${name}@disk.host`]),
    );
    for (const { name, pool, instances, instanceBytes, shape } of saved) {
      expect(shape[0]).toBe(name.startsWith('x') ? 5 : 10);
      if (pool === 'disk') expect(instances).toBe(4 * 4);
      // Chunks of x and o have 640 bytes, of lse 80.
      expect(instanceBytes).toBe(pool !== 'hbm' ? 4096 : name.startsWith('lse') ? 512 : 1024);
    }
  });
});

describe('copies of gradients', () => {
  it.each([1, 2, 3])('dx on the host is fetched and stored once a turn that adds to it, in tiles of %i too', (kvTileChunks) => {
    const [u, more] = [8, { hiddenGradients: 'host', kvTileChunks }];
    expect(copied('auto', u, 'lossForward', more)).toEqual({ 'hbm>host dx': u });
    expect(copied('auto', u, 'lossBackward', more)).toEqual({ 'host>hbm dx': u, 'hbm>host dx': u });
    expect(copied('auto', u, 'layerBackward', more)).toEqual({ 'host>hbm dx': u, 'hbm>host dx': u });
    expect(copied('fpdt', u, 'layerBackward', more)).toMatchObject({ 'host>hbm dx': 2 * u, 'hbm>host dx': 2 * u });
    expect(copied('auto', u, 'embedBackward', more)).toEqual({ 'host>hbm dx': u });
  });

  it.each([1, 2, 3, 8])('dk, dv on the host in tiles of %i: each turn fetches what it adds to, and stores what is not final', (g) => {
    const u = 8;
    const schedule = smallSchedule('auto', u, { keyValueGradients: 'host', kvTileChunks: g });
    const pairs = (u * (u + 1)) / 2;
    const each = (count: number, pools: string): Counts => ({ [`${pools} dk`]: count, [`${pools} dv`]: count });
    expect(moved(schedule, 'layerBackward')).toEqual({ ...each(pairs, 'host>hbm'), ...each(pairs, 'hbm>host') });
    const fetches = sum(u, (chunk) => Math.floor(chunk / g) + 1);
    // What was set to zero goes there first; the tile of the last query chunk has one chunk of its own only where g divides it.
    const stores = Math.ceil(u / g) + sum(u, (chunk) => Math.floor(chunk / g) + (chunk % g > 0 ? 1 : 0));
    expect(moved(schedule, 'layerBackward', { copies: true })).toEqual({ ...each(fetches, 'host>hbm'), ...each(stores, 'hbm>host') });
  });
});

describe('rings', () => {
  it.each([1, 2, 4])('hold a constant number of chunks, however many there are, in tiles of %i', (kvTileChunks) => {
    for (const more of [{}, { attentionOutput: 'host' }, { checkpoints: 'disk', attentionOutput: 'disk' }]) {
      for (const policy of ['fpdt', 'auto'] as const) {
        const slots = (u: number): unknown =>
          smallSchedule(policy, u, { ...more, kvTileChunks, keyValues: 'host', prefetchDepth: 3 })
            .buffers.filter(({ name }) => /@.*\./.test(name))
            .map(({ name, shape, instances }) => [name, shape[0], instances]);
        expect(slots(9 * kvTileChunks)).toEqual(slots(8 * kvTileChunks));
      }
    }
  });
});
