/** Seconds that a rank waits in its exchanges for the slowest: ranks that do the same work between two of them do not end together. */
import type { Op } from '../schedule/op.js';
import type { PredictInput } from './input.js';

const EXCHANGES: readonly Op['kind'][] = ['toHeads', 'toSequence'];

/**
 * By op that follows work of its section: a fixed time, a share of the work since the exchange before, and a time for what ZeRO did before
 * the first. `secondsOf` an op alone.
 */
export function rankWaits(input: PredictInput, secondsOf: (op: Op) => number): (op: Op) => number {
  const { turnWaitSeconds, rankWaitSeconds, rankSkew } = input.cluster.rates;
  if (turnWaitSeconds + rankWaitSeconds + rankSkew === 0 || input.run.sequenceParallelSize === 1) return () => 0;
  const waits = new Map<Op, number>();
  for (const { ops } of input.sections) {
    let since = 0;
    let before = turnWaitSeconds;
    for (const op of ops) {
      if (EXCHANGES.includes(op.kind)) {
        if (since > 0) {
          waits.set(op, before + rankWaitSeconds + rankSkew * since);
          before = 0;
        }
        since = 0;
      } else if (op.stream === 'compute') since += secondsOf(op);
    }
  }
  return (op) => waits.get(op) ?? 0;
}
