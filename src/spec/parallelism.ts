/** How the ranks are split into sequence parallel groups and replicas of them. */
import { FpdtError } from './errors.js';
import type { RunInput } from './runInput.js';
import type { ClusterSpec, ModelSpec } from './types.js';

export interface Parallelism {
  readonly sequenceParallelSize: number;
  readonly dataParallelSize: number;
}

/**
 * Ranks = sequenceParallelSize * dataParallelSize. Attention is sharded over heads, so the sequence parallel size must
 * divide both head counts; left open, it is the largest that does. `fromDeepSpeed` is the ds_config's sequence_parallel_size.
 */
export function resolveParallelism(run: RunInput, model: ModelSpec, cluster: ClusterSpec, fromDeepSpeed?: number): Parallelism {
  const { numRanks } = cluster;
  const asked = askedSize(run, numRanks, fromDeepSpeed);
  const sequenceParallelSize = asked ?? largestLegal(model, numRanks, numRanks);
  checkHeads(sequenceParallelSize, model, numRanks);
  const dataParallelSize = numRanks / sequenceParallelSize;
  if (!Number.isInteger(dataParallelSize) || (run.dataParallelSize ?? dataParallelSize) !== dataParallelSize) {
    throw new FpdtError(
      `run: sequenceParallelSize * dataParallelSize must be the number of ranks: ${sequenceParallelSize} * ` +
        `${run.dataParallelSize ?? '?'} != ${numRanks}`,
      { code: 'bad-parallelism', hint: splitHint(largestLegal(model, numRanks, sequenceParallelSize), numRanks) },
    );
  }
  return { sequenceParallelSize, dataParallelSize };
}

function askedSize(run: RunInput, numRanks: number, fromDeepSpeed: number | undefined): number | undefined {
  const { sequenceParallelSize, dataParallelSize } = run;
  if (sequenceParallelSize !== undefined && fromDeepSpeed !== undefined && sequenceParallelSize !== fromDeepSpeed) {
    throw new FpdtError(`run.sequenceParallelSize is ${sequenceParallelSize} but deepspeed.sequence_parallel_size is ${fromDeepSpeed}`, {
      code: 'conflict',
      hint: 'give one of them, or the same number in both',
    });
  }
  const asked = sequenceParallelSize ?? fromDeepSpeed;
  if (asked !== undefined || dataParallelSize === undefined) return asked;
  return numRanks % dataParallelSize === 0 ? numRanks / dataParallelSize : numRanks;
}

function checkHeads(size: number, model: ModelSpec, numRanks: number): void {
  if (dividesHeads(size, model)) return;
  throw new FpdtError(
    `run.sequenceParallelSize ${size} must divide the model's ${model.numHeads} query heads and ${model.numKvHeads} key/value heads`,
    {
      code: 'too-many-ranks-for-heads',
      hint: splitHint(largestLegal(model, numRanks, size), numRanks),
      details: { sequenceParallelSize: size, numHeads: model.numHeads, numKvHeads: model.numKvHeads },
    },
  );
}

function dividesHeads(size: number, { numHeads, numKvHeads }: ModelSpec): boolean {
  return numHeads % size === 0 && numKvHeads % size === 0;
}

function largestLegal(model: ModelSpec, numRanks: number, atMost: number): number {
  for (let size = Math.min(atMost, numRanks); size > 1; size--) {
    if (numRanks % size === 0 && dividesHeads(size, model)) return size;
  }
  return 1;
}

function splitHint(size: number, numRanks: number): string {
  return `the largest that works here is sequenceParallelSize=${size} with dataParallelSize=${numRanks / size}`;
}
