/**
 * Runs a logical section on the CPU, op by op in its order, over tensors of numbers. What an op computes is made up: every row it writes
 * depends on the op, on the row's place and on every row it reads, so that one wrong, stale or missing value changes all that follows.
 */
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../../src/schedule/logical.js';

/** Rows of a tensor by name, instance and slot. */
export class Memory {
  private readonly tensors: ReadonlyMap<string, Tensor>;
  private readonly rows = new Map<string, number[]>();

  constructor(tensors: readonly Tensor[]) {
    this.tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  }

  /** Every row of every instance gets a value of its own. */
  fill(names: readonly string[]): void {
    for (const name of names) {
      const { instances, slots, chunkRows } = this.tensor(name);
      for (let instance = 0; instance < instances; instance++) {
        for (let slot = 0; slot < slots; slot++) {
          const rows = Array.from({ length: chunkRows }, (_, row) => hash([text(name), instance, slot, row]));
          this.rows.set(`${name}/${instance}/${slot}`, rows);
        }
      }
    }
  }

  /** All rows of a tensor, in order; NaN where nothing was written. */
  all(name: string): readonly number[] {
    const { instances, slots } = this.tensor(name);
    return Array.from({ length: instances * slots }, (_, i) => this.chunk(name, Math.floor(i / slots), i % slots)).flat();
  }

  read(ref: TensorRef, args: ReadonlyMap<string, number>): readonly number[] {
    return this.places(ref, args).map(([chunk, row]) => chunk[row] ?? Number.NaN);
  }

  write(ref: TensorRef, args: ReadonlyMap<string, number>, values: readonly number[]): void {
    this.places(ref, args).forEach(([chunk, row], i) => {
      chunk[row] = values[i] ?? Number.NaN;
    });
  }

  private places({ tensor, chunks, rows, param }: TensorRef, args: ReadonlyMap<string, number>): readonly [number[], number][] {
    const { slots, chunkRows, instances } = this.tensor(tensor);
    const instance = param === undefined ? 0 : (args.get(param) ?? Number.NaN);
    if (!(instance < instances)) throw new Error(`${tensor} has no instance ${instance}`);
    const start = chunks.start % slots;
    const count = chunks.end - chunks.start;
    if (start + count > slots) throw new Error(`chunks ${chunks.start}..${chunks.end} of ${tensor} wrap around its ${slots} slots`);
    const { start: first, end } = rows ?? { start: 0, end: count * chunkRows };
    return Array.from({ length: end - first }, (_, i) => {
      const row = first + i;
      return [this.chunk(tensor, instance, start + Math.floor(row / chunkRows)), row % chunkRows];
    });
  }

  private chunk(name: string, instance: number, slot: number): number[] {
    const key = `${name}/${instance}/${slot}`;
    const known = this.rows.get(key) ?? Array.from({ length: this.tensor(name).chunkRows }, () => Number.NaN);
    this.rows.set(key, known);
    return known;
  }

  private tensor(name: string): Tensor {
    const found = this.tensors.get(name);
    if (found === undefined) throw new Error(`no tensor is called ${name}`);
    return found;
  }
}

/** Throws where an op reads a row that nothing wrote. Ops are told apart by their tokens, which passes leave as they are. */
export function run({ ops }: LogicalSection, memory: Memory, args: ReadonlyMap<string, number>): void {
  for (const op of ops) {
    if (op.kind === 'copy') copy(op, memory, args);
    else compute(op, memory, args);
  }
}

function copy({ reads, writes }: LogicalOp, memory: Memory, args: ReadonlyMap<string, number>): void {
  const values = reads.map((ref) => memory.read(ref, args));
  writes.forEach((ref, i) => {
    memory.write(ref, args, values[i] ?? []);
  });
}

function compute({ kind, tokens, reads, writes, accumulates }: LogicalOp, memory: Memory, args: ReadonlyMap<string, number>): void {
  const input = hash([text(kind), tokens.start, ...reads.flatMap((ref) => memory.read(ref, args))]);
  const sums = accumulates.map((ref) => memory.read(ref, args));
  if (Number.isNaN(input) || sums.flat().some(Number.isNaN)) throw new Error(`${kind} ${tokens.start} reads what nothing wrote`);
  writes.forEach((ref, view) => {
    memory.write(
      ref,
      args,
      memory.read(ref, args).map((_, row) => hash([input, view, row])),
    );
  });
  accumulates.forEach((ref, view) => {
    memory.write(ref, args, sums[view]?.map((old, row) => hash([old, input, view, row])) ?? []);
  });
}

/** FNV-1a over numbers; NaN where one of them is. */
function hash(values: readonly number[]): number {
  if (values.some(Number.isNaN)) return Number.NaN;
  return values.reduce((sum, value) => Math.imul(sum ^ value, 16_777_619) >>> 0, 2_166_136_261);
}

function text(name: string): number {
  return hash(Array.from({ length: name.length }, (_, i) => name.charCodeAt(i)));
}
