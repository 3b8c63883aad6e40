/** What is surely complete when an op starts, by vector clocks over streams and waits. */
import { type Op, STREAMS, type SectionPart } from './op.js';

const NUM_STREAMS = STREAMS.length;

/**
 * For each op of a part and each stream, the latest op of that stream that is surely complete when the op starts: its own stream's
 * earlier ops, and whatever its waits imply. Row (id - part.start), -1 for none.
 */
export function completionClocks(ops: readonly Op[], part: SectionPart): Int32Array {
  const clocks = new Int32Array((part.end - part.start) * NUM_STREAMS).fill(-1);
  const latest = new Int32Array(NUM_STREAMS).fill(-1);
  for (let id = part.start; id < part.end; id++) {
    const op = ops[id] as Op;
    const stream = STREAMS.indexOf(op.stream);
    const row = (id - part.start) * NUM_STREAMS;
    learn(latest[stream] ?? -1, row);
    for (const wait of op.waits) learn(wait, row);
    latest[stream] = id;
  }
  return clocks;

  function learn(done: number, row: number): void {
    if (done < part.start || done >= part.end) return;
    const stream = STREAMS.indexOf((ops[done] as Op).stream);
    const known = (done - part.start) * NUM_STREAMS;
    for (let s = 0; s < NUM_STREAMS; s++) {
      clocks[row + s] = Math.max(clocks[row + s] ?? -1, clocks[known + s] ?? -1, s === stream ? done : -1);
    }
  }
}
