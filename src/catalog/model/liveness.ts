/** What code needs on some rows: the largest sum of what is alive at once, and its work. */
import type { CodePlace, PrimitiveFacts } from './facts.js';
import { COSTS } from './primitives.js';
import { takenBy } from './reuse.js';
import { ELEMENT_BYTES } from './traffic.js';
import type { Code, Instruction } from '../../spec/modelCode.js';

/** Bytes of the values that an op makes inside, at their most. */
export function peakBytes({ instructions, widths }: Code, rows: number, place: CodePlace): number {
  const alive = new Map<string, number>();
  let held = 0;
  let peak = 0;
  for (const one of instructions) {
    const taken = place.fused?.elementwise === 'inplace' ? takenBy(one) : [];
    const made = taken.length > 0 ? 0 : one.writes.reduce((sum, name) => sum + bytesOf(one, name, widths, rows, place.w), 0);
    const most = taken.length > 0 ? 0 : Math.max(made, ...COSTS[one.op].moments(factsOf(one, widths, rows, place)));
    peak = Math.max(peak, held + most);
    held += made;
    one.writes.forEach((name, i) => {
      const from = taken[i];
      alive.set(name, from === undefined ? bytesOf(one, name, widths, rows, place.w) : (alive.get(from) ?? 0));
      if (from !== undefined) alive.set(from, 0);
    });
    for (const name of one.frees) held -= alive.get(name) ?? 0;
  }
  return peak;
}

export interface CodeWork {
  readonly matmulFlops: number;
  /** Of weights that products read, or of gradients of weights that they form. */
  readonly weightBytes: number;
  /** Read and written by element-wise kernels. */
  readonly elementBytes: number;
  readonly kernels: number;
}

export function workOf({ instructions, widths }: Code, rows: number, place: CodePlace): CodeWork {
  let [matmulFlops, weightBytes, elementBytes, kernels] = [0, 0, 0, 0];
  for (const one of instructions) {
    const work = instructionWork(one, widths, rows, place);
    matmulFlops += work.matmulFlops;
    weightBytes += work.weightBytes;
    elementBytes += work.elementBytes;
    kernels += work.kernels;
  }
  return { matmulFlops, weightBytes, elementBytes, kernels };
}

export function instructionWork(one: Instruction, widths: Code['widths'], rows: number, place: CodePlace): CodeWork {
  const facts = factsOf(one, widths, rows, place);
  const cost = COSTS[one.op];
  const matmulFlops = cost.matmulFlops(facts);
  return {
    matmulFlops,
    // 2 FLOPs per row of each weight that is used.
    weightBytes: rows === 0 ? 0 : (place.w * matmulFlops) / (2 * rows),
    elementBytes: ELEMENT_BYTES[one.op](facts),
    kernels: cost.kernels(facts),
  };
}

/** What is loaded is the view, and so is a cast to the dtype that a view has already. */
function bytesOf({ op }: Instruction, name: string, widths: Code['widths'], rows: number, w: number): number {
  return op === 'load' || (op === 'cast' && w >= 4) ? 0 : rows * w * (widths[name] ?? 0);
}

function factsOf(
  { op, reads, writes, weights, attributes }: Instruction,
  widths: Code['widths'],
  rows: number,
  { w, cuda = false, fused }: CodePlace,
): PrimitiveFacts {
  const isReverse = op.endsWith('Bwd');
  const [first = ''] = reads;
  const outWidth = widths[isReverse ? first : (writes[0] ?? first)] ?? 0;
  // The reverse of a step reads the gradient of its result first, and makes that of its input.
  const inWidth = widths[isReverse ? (writes[0] ?? reads[1] ?? first) : first] ?? 0;
  const used = weights.map(({ shape, part }) => {
    const elements = shape.reduce((product, size) => product * size, 1);
    return part === undefined ? elements : (elements / outputs(shape, attributes)) * (part[1] - part[0]);
  });
  const trains = weights.map(({ frozen }) => frozen !== true);
  return { rows, w, cuda, fused, inWidth, outWidth, weights: used, trains, attributes };
}

function outputs(shape: readonly number[], { transposed }: Instruction['attributes']): number {
  return (transposed === true && shape.length === 2 ? shape[1] : shape[0]) ?? 1;
}
