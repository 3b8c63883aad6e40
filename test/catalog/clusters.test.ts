import { expect, test } from 'vitest';
import { DEVICE_NAMES, parseCluster } from '../../src/catalog/index.js';
import { UNMEASURED } from '../../src/catalog/unmeasured.js';
import { errorOf } from '../spec/inputs.js';

test.each(DEVICE_NAMES)('%s is complete and says where its numbers are from', (gpu) => {
  const cluster = parseCluster({ gpus: 8, gpu });
  expect(cluster.numRanks).toBe(8);
  expect(cluster.ratesSource).not.toBe('');
  expect(cluster.overheads.every(({ bytes, source }) => bytes > 0 && source !== '')).toBe(true);
  const { attentionKernels, kernelRates, ...rates } = cluster.rates;
  expect(kernelRates).toEqual([]);
  expect(Object.values(rates).every((rate) => Number.isFinite(rate) && rate >= 0)).toBe(true);
  for (const { forwardFlops, backwardFlops } of attentionKernels) {
    expect(forwardFlops).toBeGreaterThan(0);
    expect(Math.max(forwardFlops, backwardFlops)).toBeLessThan(cluster.peakFlops);
  }
  expect(rates.matmulFlops).toBeLessThan(cluster.peakFlops);
  expect(rates.interNodeBytes).toBeLessThan(rates.commBytes);
});

test('memory can be overridden, in bytes or as text', () => {
  expect(parseCluster({ gpus: 1, gpu: 'cpu', hbmBytes: '2G', hostBytes: 1000 })).toMatchObject({ hbmBytes: 2 ** 31, hostBytes: 1000 });
});

test('a communicator is among the overheads of several GPUs; a single one has none', () => {
  const names = (gpus: number): string[] => parseCluster({ gpus, gpu: 'h100-80gb' }).overheads.map(({ name }) => name);
  expect([names(1).includes('NCCL communicator'), names(2).includes('NCCL communicator')]).toEqual([false, true]);
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

test.each([
  ['h100', 'h100-80gb'],
  ['h100-nvl', 'h100-nvl-94gb'],
  ['h200', 'h200-141gb'],
  ['rtx', 'rtx-4090'],
  ['mi300', 'mi300x'],
])('%s is found as %s', (gpu, name) => {
  expect(parseCluster({ gpus: 2, gpu }).name).toBe(`2x ${name}`);
});

test('cards of one chip differ in memory alone', () => {
  const of = (gpu: string) => parseCluster({ gpus: 8, gpu });
  const [small, large] = [of('a100-40gb'), of('a100-80gb')];
  const { memoryBytes, optimizerSecondsPerParameter } = small.rates;
  expect({ ...large.rates, memoryBytes, optimizerSecondsPerParameter }).toEqual(small.rates);
  expect(large.rates.memoryBytes).toBeGreaterThan(memoryBytes);
});

test('cards without NVLink reach each other over PCIe', () => {
  const { rates: h100 } = parseCluster({ gpus: 8, gpu: 'h100-80gb' });
  for (const gpu of ['l40s', 'rtx-4090', 'h100-nvl']) {
    const { commBytes, h2dBytes } = parseCluster({ gpus: 8, gpu }).rates;
    expect(commBytes).toBeLessThan(h2dBytes);
    expect(commBytes).toBeLessThan(h100.commBytes / 5);
  }
});

test('a file of an earlier version has no host costs and no disk, and one kind of link; a disk needs rates', () => {
  const { diskBytes: _disk, ...full } = parseCluster({ gpus: 2, gpu: 'h100-80gb' });
  const { matmulFlops, attentionForwardFlops, attentionBackwardFlops, memoryBytes, h2dBytes, d2hBytes, duplexBytes } = full.rates;
  const { commBytes, commLatencySeconds, launchSeconds, optimizerSecondsPerParameter, stepOverheadSeconds } = full.rates;
  const rates = {
    ...{ matmulFlops, attentionForwardFlops, attentionBackwardFlops, memoryBytes, h2dBytes, d2hBytes, duplexBytes },
    ...{ commBytes, commLatencySeconds, launchSeconds, optimizerSecondsPerParameter, stepOverheadSeconds },
  };
  const older = parseCluster({ ...full, rates });
  expect(older.diskBytes).toBe(0);
  expect(older.rates).toEqual({
    ...rates,
    ...{ hostSecondsPerOp: 0, hostSecondsPerKernel: 0, diskReadBytes: 0, diskWriteBytes: 0 },
    ...{ attentionKernels: [], attentionHalfKeys: 0, offloadedOptimizerSecondsPerParameter: optimizerSecondsPerParameter },
    ...{ interNodeBytes: commBytes, interNodeLatencySeconds: commLatencySeconds, gatherBytes: commBytes, reduceBytes: commBytes },
    ...UNMEASURED,
  });
  expect(errorOf(() => parseCluster({ ...full, rates, diskBytes: 1 }))).toMatchObject({ code: 'missing-key' });
  expect(parseCluster({ gpus: 1, gpu: 'h100-80gb', diskBytes: '1G' }).diskBytes).toBe(2 ** 30);
});

test('host costs are charged where host and device work side by side', () => {
  expect(parseCluster({ gpus: 1, gpu: 'cpu' }).rates.hostSecondsPerKernel).toBe(0);
  expect(parseCluster({ gpus: 1, gpu: 'h100-80gb' }).rates.hostSecondsPerKernel).toBeGreaterThan(0);
});

test.each([
  [{ gpus: 4, gpu: 'a100' }, 'unknown-device', 'say which: a100-40gb, a100-80gb'],
  [{ gpus: 4, gpu: '' }, 'unknown-device', 'known: '],
  [{ gpus: 4, gpu: 'h10080gb' }, 'unknown-device', "did you mean 'h100-80gb'"],
  [{ gpus: 4, gpu: 'tpu' }, 'unknown-device', 'known: '],
  [{ gpus: 0, gpu: 'cpu' }, 'invalid-value', ''],
  [{ gpus: 2 ** 20 + 1, gpu: 'cpu' }, 'invalid-value', '1048576'],
  [{ gpu: 'cpu' }, 'missing-key', ''],
  [{ gpus: 1, gpu: 'cpu', ranks_per_node: 1 }, 'unknown-key', 'ranksPerNode'],
])('%j is refused', (input, code, hint) => {
  const error = errorOf(() => parseCluster(input));
  expect(error.code).toBe(code);
  expect(error.hint ?? '').toContain(hint);
});
