import { expect, test } from 'vitest';
import { parseCluster } from '../../src/catalog/index.js';
import { devicePool, linkBytesPerSecond, linksOf, poolLabel, poolsOf, streamsOf } from '../../src/catalog/pools.js';

const plain = parseCluster({ gpus: 1, gpu: 'cpu', hbmBytes: '1G', hostBytes: '2G' });
const withDisk = parseCluster({ gpus: 1, gpu: 'cpu', hbmBytes: '1G', hostBytes: '2G', diskBytes: '3G' });

test('a disk is a pool only where there is room on one', () => {
  expect(poolsOf(plain).map(({ name, kind, capacityBytes }) => [name, kind, capacityBytes / 2 ** 30])).toEqual([
    ['hbm', 'device', 1],
    ['host', 'pinned', 2],
  ]);
  expect(poolsOf(withDisk).at(-1)).toEqual({ name: 'disk', kind: 'file', bytes: 0, capacityBytes: 3 * 2 ** 30 });
});

test('links join the pools that are there, each with a stream and a rate', () => {
  expect(streamsOf(linksOf(poolsOf(plain)))).toEqual(['compute', 'comm', 'h2d', 'd2h']);
  expect(streamsOf(linksOf(poolsOf(withDisk)))).toEqual(['compute', 'comm', 'h2d', 'd2h', 'read', 'write']);
  for (const { stream } of linksOf(poolsOf(withDisk))) expect(linkBytesPerSecond(stream, withDisk.rates)).toBeGreaterThan(0);
  expect(() => linkBytesPerSecond('comm', withDisk.rates)).toThrow(/comm/);
});

test('the device, and names for messages', () => {
  expect(devicePool(poolsOf(plain))).toBe('hbm');
  expect(() => devicePool(poolsOf(plain).slice(1))).toThrow(/no pool is a device among host/);
  expect(['hbm', 'host', 'nvme'].map(poolLabel)).toEqual(['HBM', 'host memory', 'nvme']);
});
