import { expect, test } from 'vitest';
import { describeLoss, TelemetryCollector } from '../../src/telemetry/collect.js';
import type { OpRecord, TelemetryBatch } from '../../src/bridge/telemetryBatch.js';

const op = (opKind: string, durationUs: number, stream = 'compute', bytes = 0): OpRecord => ({
  kind: 'op',
  step: 0,
  section: 'layerForward',
  layer: 0,
  op: 0,
  opKind,
  stream,
  startUs: 0,
  durationUs,
  bytes,
});

const batch = (rank: number, seq: number, records: TelemetryBatch['records'], dropped = 0): TelemetryBatch => ({
  v: 2,
  run: 'r',
  rank,
  incarnation: 0,
  seq,
  dropped,
  records,
});

test('ops of all ranks are summed by kind and by stream', () => {
  const collector = new TelemetryCollector();
  collector.addBatch(batch(1, 0, [op('attn', 500_000), op('copy', 250_000, 'h2d', 64)]));
  collector.addBatch(batch(0, 0, [op('attn', 1_500_000)]));
  const { byKind, byStream, ranks, loss } = collector.summary();
  expect(byKind).toEqual({ attn: { count: 2, seconds: 2, bytes: 0 }, copy: { count: 1, seconds: 0.25, bytes: 64 } });
  expect(byStream.h2d).toEqual({ count: 1, seconds: 0.25, bytes: 64 });
  expect(ranks.map((one) => one.rank)).toEqual([0, 1]);
  expect(describeLoss(loss)).toBeNull();
});

test('missing batches and dropped records are counted by rank', () => {
  const collector = new TelemetryCollector();
  collector.addBatch(batch(0, 0, [op('attn', 1)]));
  collector.addBatch(batch(0, 3, [op('attn', 1)], 512));
  collector.addBatch(batch(1, 2, []));
  const { loss, ranks } = collector.summary();
  expect(ranks.map((one) => one.loss)).toEqual([
    { numBatches: 2, numRecords: 512 },
    { numBatches: 2, numRecords: 0 },
  ]);
  expect(describeLoss(loss)).toContain('4 batches missing, 512 records dropped');
});

test('memory peaks are the largest record of any rank', () => {
  const collector = new TelemetryCollector();
  const memory = (pool: string, bytes: number) => ({ kind: 'memory' as const, step: 0, pool, tsUs: 0, bytes });
  collector.addBatch(batch(0, 0, [memory('hbm', 10), memory('hbm', 30), memory('disk', 5)]));
  collector.addBatch(batch(1, 0, [memory('hbm', 20)]));
  expect(collector.summary().peakBytes).toEqual({ disk: 5, hbm: 30 });
});

test('other events are ignored', () => {
  const collector = new TelemetryCollector();
  collector.add({ type: 'log', rank: 0, stream: 'stdout', line: 'hello' });
  expect(collector.summary().ranks).toEqual([]);
});
