/** Sums of the op records that came in, and how much did not: what reports and timelines are made from. */

import type { RunEvent } from '../bridge/events.js';
import type { MemoryRecord, OpRecord, PhaseRecord, TelemetryBatch } from '../bridge/telemetryBatch.js';

export interface OpTotals {
  readonly count: number;
  readonly seconds: number;
  readonly bytes: number;
}

/** Telemetry may be lost; every sum over records is then too small, and this says by how much. */
export interface TelemetryLoss {
  /** Batches that never came, seen as gaps in a rank's sequence. Lost after the last batch: not seen. */
  readonly numBatches: number;
  /** Records the ranks dropped because their socket was full; part of the missing batches. */
  readonly numRecords: number;
}

export interface RankTelemetry {
  readonly rank: number;
  readonly ops: readonly OpRecord[];
  readonly memory: readonly MemoryRecord[];
  readonly phases: readonly PhaseRecord[];
  readonly loss: TelemetryLoss;
}

export interface TelemetrySummary {
  readonly kind: 'telemetrySummary';
  /** Over all ranks and steps. */
  readonly byKind: Readonly<Record<string, OpTotals>>;
  readonly byStream: Readonly<Record<string, OpTotals>>;
  /** Largest memory record of any rank, by pool. */
  readonly peakBytes: Readonly<Record<string, number>>;
  readonly ranks: readonly RankTelemetry[];
  readonly loss: TelemetryLoss;
}

interface RankState {
  readonly ops: OpRecord[];
  readonly memory: MemoryRecord[];
  readonly phases: PhaseRecord[];
  nextSeq: number;
  numLostBatches: number;
  numDropped: number;
}

/** Keeps every record it is given; feed it the events of a run, or batches. */
export class TelemetryCollector {
  readonly #ranks = new Map<number, RankState>();

  /** Looks at telemetry events and ignores the others. */
  add(event: RunEvent): void {
    if (event.type === 'telemetry') this.addBatch(event.batch);
  }

  addBatch(batch: TelemetryBatch): void {
    const state = this.#stateOf(batch.rank);
    state.numLostBatches += Math.max(0, batch.seq - state.nextSeq);
    state.nextSeq = Math.max(state.nextSeq, batch.seq + 1);
    state.numDropped = Math.max(state.numDropped, batch.dropped);
    for (const record of batch.records) {
      if (record.kind === 'op') state.ops.push(record);
      else if (record.kind === 'memory') state.memory.push(record);
      else state.phases.push(record);
    }
  }

  summary(): TelemetrySummary {
    const ranks = [...this.#ranks].sort(([a], [b]) => a - b).map(([rank, state]) => toRank(rank, state));
    const ops = ranks.flatMap((one) => one.ops);
    return {
      kind: 'telemetrySummary',
      byKind: totalsBy(ops, (op) => op.opKind),
      byStream: totalsBy(ops, (op) => op.stream),
      peakBytes: peaksByPool(ranks.flatMap((one) => one.memory)),
      ranks,
      loss: {
        numBatches: ranks.reduce((sum, { loss }) => sum + loss.numBatches, 0),
        numRecords: ranks.reduce((sum, { loss }) => sum + loss.numRecords, 0),
      },
    };
  }

  #stateOf(rank: number): RankState {
    const found = this.#ranks.get(rank);
    if (found !== undefined) return found;
    const made = { ops: [], memory: [], phases: [], nextSeq: 0, numLostBatches: 0, numDropped: 0 };
    this.#ranks.set(rank, made);
    return made;
  }
}

/** A remark for the user when telemetry was lost; null when it is complete. */
export function describeLoss({ numBatches, numRecords }: TelemetryLoss): string | null {
  if (numBatches === 0 && numRecords === 0) return null;
  return `telemetry is incomplete: ${numBatches} batches missing, ${numRecords} records dropped by the ranks; sums over ops are too small`;
}

function toRank(rank: number, { ops, memory, phases, numLostBatches, numDropped }: RankState): RankTelemetry {
  return { rank, ops, memory, phases, loss: { numBatches: numLostBatches, numRecords: numDropped } };
}

function totalsBy(ops: readonly OpRecord[], keyOf: (op: OpRecord) => string): Record<string, OpTotals> {
  const totals = new Map<string, { count: number; micros: number; bytes: number }>();
  for (const op of ops) {
    const key = keyOf(op);
    const total = totals.get(key) ?? { count: 0, micros: 0, bytes: 0 };
    totals.set(key, total);
    total.count += 1;
    total.micros += op.durationUs;
    total.bytes += op.bytes;
  }
  const sorted = [...totals].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.map(([key, { count, micros, bytes }]) => [key, { count, seconds: micros / 1e6, bytes }]));
}

function peaksByPool(records: readonly MemoryRecord[]): Record<string, number> {
  const peaks = new Map<string, number>();
  for (const { pool, bytes } of records) peaks.set(pool, Math.max(bytes, peaks.get(pool) ?? 0));
  return Object.fromEntries([...peaks].sort(([a], [b]) => (a < b ? -1 : 1)));
}
