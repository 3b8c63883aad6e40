import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseCluster } from '../../src/catalog/index.js';
import { communicatorItems, numCommunicators } from '../../src/memory/communicators.js';

/** Counted on running ranks too: python/tests/test_communicators.py. */
const COUNTED = JSON.parse(readFileSync('test/fixtures/communicators.json', 'utf8')) as Readonly<Record<string, number>>;

test.each(Object.entries(COUNTED))('%s have %i', (name, count) => {
  const [stage, sequenceParallelSize = 0, numRanks = 0, size = 1] = (name.match(/\d+/g) ?? []).map(Number);
  const deepspeed = { zero_optimization: { stage, zero_hpz_partition_size: size } };
  expect(numCommunicators({ numRanks }, { sequenceParallelSize }, deepspeed)).toBe(count);
});

const bytes = (gpus: number, sequenceParallelSize: number, name: string, cluster: object = {}): number =>
  communicatorItems({ ...parseCluster({ gpus, gpu: 'h100-80gb' }), ...cluster }, { sequenceParallelSize }).find(
    (item) => item.name === name,
  )?.bytes ?? 0;

test('all-to-all buffers are those of the peers in a sequence and a node', () => {
  const buffers = (gpus: number, size: number): number => bytes(gpus, size, 'NCCL all-to-all buffers');
  expect(buffers(8, 8) / buffers(8, 2)).toBe(7);
  expect(buffers(16, 16)).toBe(buffers(8, 8));
  expect([buffers(8, 1), buffers(1, 1)]).toEqual([0, 0]);
});

test('communicators are those beside the first', () => {
  const more = (gpus: number, size: number): number => bytes(gpus, size, 'more NCCL communicators');
  expect([more(8, 4), more(8, 8), more(8, 1), more(1, 1)]).toEqual([688e6, 0, 0, 0]);
});

test('a number of the cluster stands in the place of ours; a CPU has none', () => {
  const own = { name: 'NCCL all-to-all buffers', bytes: 5, provenance: 'measured', source: 'nvidia-smi' } as const;
  expect(bytes(8, 8, own.name, { overheads: [own] })).toBe(0);
  expect(communicatorItems(parseCluster({ gpus: 2, gpu: 'cpu' }), { sequenceParallelSize: 2 })).toEqual([]);
});
