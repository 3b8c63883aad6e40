/** How the ranks are split into sequence parallel groups and replicas of them. */
import { FpdtError } from './errors.js';
import type { RunInput } from './runInput.js';
import type { ClusterSpec, ModelSpec } from './types.js';

export interface Parallelism {
  readonly sequenceParallelSize: number;
  readonly dataParallelSize: number;
}

/**
 * Ranks = sequenceParallelSize * dataParallelSize. Attention is sharded over query heads, so there are at most as many sequence
 * parallel ranks as those. Left open, the size is the largest that divides both head counts: larger ones copy key/value heads.
 * `fromDeepSpeed` is the ds_config's sequence_parallel_size.
 */
export function resolveParallelism(run: RunInput, model: ModelSpec, cluster: ClusterSpec, fromDeepSpeed?: number): Parallelism {
  const { numRanks } = cluster;
  const { dataParallelSize } = run;
  const asked = askedSize(run, fromDeepSpeed);
  const open = dataParallelSize === undefined ? largestWithoutCopies(model, numRanks, numRanks) : numRanks / dataParallelSize;
  const split = { sequenceParallelSize: asked ?? open, dataParallelSize: dataParallelSize ?? numRanks / (asked ?? open) };
  if (!Object.values(split).every(Number.isInteger) || split.sequenceParallelSize * split.dataParallelSize !== numRanks) {
    throw new FpdtError(
      `run: sequenceParallelSize * dataParallelSize must be the number of ranks: ${asked ?? '?'} * ${dataParallelSize ?? '?'} != ${numRanks}`,
      { code: 'bad-parallelism', hint: splitHint(model, numRanks, split.sequenceParallelSize) },
    );
  }
  checkHeads(split.sequenceParallelSize, model, numRanks);
  return split;
}

function askedSize(run: RunInput, fromDeepSpeed: number | undefined): number | undefined {
  const { sequenceParallelSize } = run;
  if (sequenceParallelSize !== undefined && fromDeepSpeed !== undefined && sequenceParallelSize !== fromDeepSpeed) {
    throw new FpdtError(`run.sequenceParallelSize is ${sequenceParallelSize} but deepspeed.sequence_parallel_size is ${fromDeepSpeed}`, {
      code: 'conflict',
      hint: 'give one of them, or the same number in both',
    });
  }
  return sequenceParallelSize ?? fromDeepSpeed;
}

function checkHeads(size: number, model: ModelSpec, numRanks: number): void {
  if (size <= model.numHeads) return;
  throw new FpdtError(`run.sequenceParallelSize ${size} is more than the model's ${model.numHeads} query heads`, {
    code: 'too-many-ranks-for-heads',
    hint: splitHint(model, numRanks, size),
    details: { sequenceParallelSize: size, numHeads: model.numHeads, numKvHeads: model.numKvHeads },
  });
}

function splitHint(model: ModelSpec, numRanks: number, atMost: number): string {
  const size = largestSize(numRanks, Math.min(atMost, model.numHeads), () => true);
  const free = largestWithoutCopies(model, numRanks, size);
  const cost = free === size ? '' : `; key/value heads are copied above sequenceParallelSize=${free}`;
  return `the largest that works here is sequenceParallelSize=${size} with dataParallelSize=${numRanks / size}${cost}`;
}

function largestWithoutCopies(model: ModelSpec, numRanks: number, atMost: number): number {
  return largestSize(numRanks, atMost, (size) => sharesHeads(size, model));
}

/** Whether this many sequence parallel ranks share the heads out with nothing copied or padded. */
export function sharesHeads(size: number, { numHeads, numKvHeads }: Pick<ModelSpec, 'numHeads' | 'numKvHeads'>): boolean {
  return numHeads % size === 0 && numKvHeads % size === 0;
}

/** Whether they share the query heads out, and the key/value heads too or whole copies of them. */
export function sharesOrCopiesHeads(size: number, { numHeads, numKvHeads }: Pick<ModelSpec, 'numHeads' | 'numKvHeads'>): boolean {
  return numHeads % size === 0 && (numKvHeads % size === 0 || size % numKvHeads === 0);
}

/** Query heads of each of so many ranks, which share them out. */
export function headsOfEach(size: number, { numHeads }: Pick<ModelSpec, 'numHeads'>): number {
  return numHeads / size;
}

/** The largest size up to `atMost` that divides the ranks and is legal; 1 if there is no other. */
function largestSize(numRanks: number, atMost: number, legal: (size: number) => boolean): number {
  for (let size = Math.min(atMost, numRanks); size > 1; size--) {
    if (numRanks % size === 0 && legal(size)) return size;
  }
  return 1;
}
