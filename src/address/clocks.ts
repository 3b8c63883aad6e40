/** What is surely complete when an op starts, by vector clocks over streams and waits. */
import type { Op } from '../schedule/op.js';

/** The number of each op's stream in `streams`; 255 for one that is not there. */
export function streamNumbers(ops: readonly Op[], streams: readonly string[]): Uint8Array {
  const numbers = new Map(streams.map((name, number) => [name, number] as const));
  const found = new Uint8Array(ops.length);
  for (let i = 0; i < ops.length; i++) found[i] = numbers.get((ops[i] as Op).stream) ?? 255;
  return found;
}

/** The ops of a section by the numbers of their streams, and what they wait for. */
export interface OpOrder {
  readonly streams: Uint8Array;
  /** Op i waits for waits[waitOffsets[i] .. waitOffsets[i + 1]). */
  readonly waitOffsets: Int32Array;
  readonly waits: Int32Array;
}

export function orderOf(ops: readonly Op[], streams: readonly string[]): OpOrder {
  const waitOffsets = new Int32Array(ops.length + 1);
  for (let id = 0; id < ops.length; id++) waitOffsets[id + 1] = (waitOffsets[id] as number) + (ops[id] as Op).waits.length;
  const waits = new Int32Array(waitOffsets[ops.length] as number);
  let next = 0;
  for (const op of ops) for (const wait of op.waits) waits[next++] = wait;
  return { streams: streamNumbers(ops, streams), waitOffsets, waits };
}

/**
 * For each op of a section and each stream the latest op of that stream, of the same call, that is surely complete when the op starts: its
 * own stream's earlier ops, and whatever its waits imply. Row-major, a row an op and a column a stream; -1 for none. An op is at
 * the position of its id and waits only for earlier ones.
 */
export function completionClocks({ streams, waitOffsets, waits }: OpOrder, numStreams: number): Int32Array {
  const clocks = new Int32Array(streams.length * numStreams).fill(-1);
  const latest = new Int32Array(numStreams).fill(-1);
  for (let id = 0; id < streams.length; id++) {
    const stream = streams[id] as number;
    learn(latest[stream] as number, id);
    const end = waitOffsets[id + 1] as number;
    for (let i = waitOffsets[id] as number; i < end; i++) learn(waits[i] as number, id);
    latest[stream] = id;
  }
  return clocks;

  /** Op `id` starts after op `done`, and so after all that came before that. */
  function learn(done: number, id: number): void {
    if (done < 0) return;
    const row = id * numStreams;
    const known = done * numStreams;
    for (let s = 0; s < numStreams; s++) {
      if ((clocks[known + s] as number) > (clocks[row + s] as number)) clocks[row + s] = clocks[known + s] as number;
    }
    const own = row + (streams[done] as number);
    if (done > (clocks[own] as number)) clocks[own] = done;
  }
}
