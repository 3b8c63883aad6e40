/** A section as the simulator runs it: one typed array a field, made once and read many thousand times. */
import { OP_ROWS, type OpKind } from '../catalog/ops/index.js';
import type { Section } from '../schedule/op.js';
import type { OpCost, OpCosts } from './cost.js';
import type { KindSeconds } from './prediction.js';
import { stuckError } from './stuck.js';

export interface SectionArrays {
  readonly name: string;
  readonly numOps: number;
  /** Number of each op's stream. */
  readonly streams: Uint8Array;
  readonly seconds: Float64Array;
  /** The same with copies at no cost. */
  readonly secondsWithFreeCopies: Float64Array;
  /** From the call's turn at the host to the moment when the op is issued. */
  readonly issueSeconds: Float64Array;
  /** Op i waits for waits[waitOffsets[i] .. waitOffsets[i + 1]). */
  readonly waitOffsets: Int32Array;
  readonly waits: Int32Array;
  /** Streams that have ops, in order. */
  readonly used: readonly number[];
  readonly hasCopies: boolean;
  readonly totals: SectionTotals;
}

/** Sums over the ops of one call. */
export interface SectionTotals {
  readonly byKind: ReadonlyMap<OpKind, KindSeconds>;
  /** By stream. */
  readonly seconds: Float64Array;
  readonly copiedBytes: Float64Array;
  readonly attentionFlops: number;
  readonly otherFlops: number;
}

/**
 * `streams` are the plan's. Throws `schedule-stuck` where an op waits for what comes later. One pass: the ops of a long section lie
 * all over memory, and to look at each takes longer than to price it.
 */
export function toArrays(section: Section, streams: readonly string[], costs: OpCosts): SectionArrays {
  const { ops, name } = section;
  const numOps = ops.length;
  const arrays = {
    name,
    numOps,
    streams: new Uint8Array(numOps),
    seconds: new Float64Array(numOps),
    secondsWithFreeCopies: new Float64Array(numOps),
    issueSeconds: new Float64Array(numOps),
    waitOffsets: new Int32Array(numOps + 1),
  };
  const waits: number[] = [];
  const totals = new Totals(streams.length);
  let issued = 0;
  let hasCopies = false;
  for (let i = 0; i < numOps; i++) {
    const op = ops[i];
    if (op === undefined) continue;
    const cost = costs(op);
    const isCopy = OP_ROWS[op.kind].stream === 'link';
    const stream = streamNumber(op.stream, streams, name);
    totals.add(op.kind, stream, cost);
    hasCopies ||= isCopy;
    issued += cost.hostSeconds;
    arrays.streams[i] = stream;
    arrays.seconds[i] = cost.seconds;
    arrays.secondsWithFreeCopies[i] = isCopy ? 0 : cost.seconds;
    arrays.issueSeconds[i] = issued;
    for (const wait of op.waits) {
      if (wait < 0 || wait >= i) throw stuckError(section);
      waits.push(wait);
    }
    arrays.waitOffsets[i + 1] = waits.length;
  }
  return { ...arrays, waits: new Int32Array(waits), used: usedStreams(arrays.streams), hasCopies, totals };
}

function usedStreams(streams: Uint8Array): readonly number[] {
  const used = new Set<number>();
  for (let i = 0; i < streams.length; i++) used.add(streams[i] ?? 0);
  return [...used].sort((a, b) => a - b);
}

function streamNumber(stream: string, streams: readonly string[], section: string): number {
  const number = streams.indexOf(stream);
  if (number < 0) throw new RangeError(`an op of ${section} runs on ${stream}, which is not one of ${streams.join(', ')}`);
  return number;
}

class Totals implements SectionTotals {
  readonly byKind = new Map<OpKind, { count: number; seconds: number }>();
  readonly seconds: Float64Array;
  readonly copiedBytes: Float64Array;
  attentionFlops = 0;
  otherFlops = 0;

  constructor(numStreams: number) {
    this.seconds = new Float64Array(numStreams);
    this.copiedBytes = new Float64Array(numStreams);
  }

  add(kind: OpKind, stream: number, { seconds, copiedBytes, attentionFlops, otherFlops }: OpCost): void {
    let total = this.byKind.get(kind);
    if (total === undefined) {
      total = { count: 0, seconds: 0 };
      this.byKind.set(kind, total);
    }
    total.count += 1;
    total.seconds += seconds;
    this.seconds[stream] = (this.seconds[stream] ?? 0) + seconds;
    this.copiedBytes[stream] = (this.copiedBytes[stream] ?? 0) + copiedBytes;
    this.attentionFlops += attentionFlops;
    this.otherFlops += otherFlops;
  }
}
