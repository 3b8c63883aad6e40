import { expect, test } from 'vitest';
import { DEVICE_NAMES, parseCluster } from '../../src/catalog/index.js';
import { errorOf } from '../spec/inputs.js';

test.each(DEVICE_NAMES)('%s is complete and says where its numbers are from', (gpu) => {
  const cluster = parseCluster({ gpus: 8, gpu });
  expect(cluster.numRanks).toBe(8);
  expect(cluster.ratesSource).not.toBe('');
  expect(cluster.overheads.every(({ bytes, source }) => bytes > 0 && source !== '')).toBe(true);
  expect(Object.values(cluster.rates).every((rate) => Number.isFinite(rate) && rate >= 0)).toBe(true);
});

test('memory can be overridden, in bytes or as text', () => {
  expect(parseCluster({ gpus: 1, gpu: 'cpu', hbmBytes: '2G', hostBytes: 1000 })).toMatchObject({ hbmBytes: 2 ** 31, hostBytes: 1000 });
});

test('all-to-all buffers grow with the peers of a node, and a single rank has none', () => {
  const bytes = (gpus: number): number =>
    parseCluster({ gpus, gpu: 'h100-80gb' }).overheads.find(({ name }) => name === 'NCCL all-to-all buffers')?.bytes ?? 0;
  expect([bytes(1), bytes(8) / bytes(2), bytes(16)]).toEqual([0, 7, bytes(8)]);
});

test('a full spec is taken as it is', () => {
  const full = parseCluster({ gpus: 2, gpu: 'cpu' });
  expect(parseCluster({ ...full })).toEqual(full);
  expect(errorOf(() => parseCluster({ ...full, rates: { ...full.rates, matmulFlop: 1 } }))).toMatchObject({
    code: 'unknown-key',
    details: { path: 'cluster.rates', nearest: 'matmulFlops' },
  });
  expect(errorOf(() => parseCluster({ ...full, hbmBytes: -1 })).code).toBe('invalid-value');
});

test('a file of an earlier version has no host costs and no disk; a disk needs rates', () => {
  const { diskBytes: _disk, ...full } = parseCluster({ gpus: 2, gpu: 'h100-80gb' });
  const { hostSecondsPerOp: _op, hostSecondsPerKernel: _kernel, diskReadBytes: _read, diskWriteBytes: _write, ...rates } = full.rates;
  const older = parseCluster({ ...full, rates });
  expect(older.diskBytes).toBe(0);
  expect(older.rates).toEqual({ ...rates, hostSecondsPerOp: 0, hostSecondsPerKernel: 0, diskReadBytes: 0, diskWriteBytes: 0 });
  expect(errorOf(() => parseCluster({ ...full, rates, diskBytes: 1 }))).toMatchObject({ code: 'missing-key' });
  expect(parseCluster({ gpus: 1, gpu: 'h100-80gb', diskBytes: '1G' }).diskBytes).toBe(2 ** 30);
});

test('host costs are charged where host and device work side by side', () => {
  expect(parseCluster({ gpus: 1, gpu: 'cpu' }).rates.hostSecondsPerKernel).toBe(0);
  expect(parseCluster({ gpus: 1, gpu: 'h100-80gb' }).rates.hostSecondsPerKernel).toBeGreaterThan(0);
});

test.each([
  [{ gpus: 4, gpu: 'h100' }, 'unknown-device', 'h100-80gb'],
  [{ gpus: 4, gpu: 'tpu' }, 'unknown-device', 'known: '],
  [{ gpus: 0, gpu: 'cpu' }, 'invalid-value', ''],
  [{ gpu: 'cpu' }, 'missing-key', ''],
  [{ gpus: 1, gpu: 'cpu', ranks_per_node: 1 }, 'unknown-key', 'ranksPerNode'],
])('%j is refused', (input, code, hint) => {
  const error = errorOf(() => parseCluster(input));
  expect(error.code).toBe(code);
  expect(error.hint ?? '').toContain(hint);
});
