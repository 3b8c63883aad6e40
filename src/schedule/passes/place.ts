/** Turns tensors into buffers and refs into row ranges. Offsets stay unset: the layout is a later stage. */
import { rowBytes } from '../../catalog/ops/views.js';
import type { Buffer } from '../buffer.js';
import type { LogicalSchedule, LogicalSection, Tensor, TensorRef } from '../logical.js';
import type { Access } from '../op.js';
import type { Places } from '../places.js';

export interface Placement {
  readonly buffers: readonly Buffer[];
  readonly toAccesses: (refs: readonly TensorRef[], section: LogicalSection) => readonly Access[];
}

export function placeTensors(schedule: Pick<LogicalSchedule, 'tensors' | 'sections'>, places: Places): Placement {
  const touched = touchedTensors(schedule);
  const used = schedule.tensors.filter(({ name }) => touched.has(name));
  const placed = new Map(used.map((tensor, id) => [tensor.name, new PlacedTensor(tensor, id)]));
  const tensorOf = ({ tensor }: TensorRef): PlacedTensor => {
    const found = placed.get(tensor);
    if (found === undefined) throw new Error(`a policy names the tensor ${tensor}, which is not declared`);
    return found;
  };
  return {
    buffers: used.map((tensor, id) => toBuffer(tensor, id, places)),
    toAccesses: (refs, section) => {
      const [first] = refs;
      if (first === undefined) return NO_ACCESSES;
      const alone = tensorOf(first).toAccesses(first, section);
      return refs.length === 1 ? alone : refs.map((ref) => tensorOf(ref).toAccesses(ref, section)[0]);
    },
  };
}

const NO_ACCESSES: readonly Access[] = [];

/** Of a tensor, for keys made of two numbers of them. */
const MOST_CHUNKS = 2 ** 24;

/** The accesses of an op that has one. */
type OneAccess = readonly [Access];

/** A tensor with the id of its buffer. */
class PlacedTensor {
  private readonly tensor: Tensor;
  private readonly id: number;
  /** By parameter + 1 and slots. Most accesses are one of these few: a long schedule has a million that share them. */
  private readonly known: Map<number, OneAccess>[] = [];

  constructor(tensor: Tensor, id: number) {
    this.tensor = tensor;
    this.id = id;
  }

  toAccesses(ref: TensorRef, section: LogicalSection): OneAccess {
    const param = paramOf(ref, section);
    if (ref.rows !== undefined) return [this.access(ref, param)];
    const { start, end } = ref.chunks;
    const key = (start % this.tensor.slots) * MOST_CHUNKS + end - start;
    const known = this.known[param + 1]?.get(key);
    if (known !== undefined) return known;
    const accesses: OneAccess = [this.access(ref, param)];
    this.known[param + 1] ??= new Map<number, OneAccess>();
    this.known[param + 1]?.set(key, accesses);
    return accesses;
  }

  private access(ref: TensorRef, param: number): Access {
    const { rows, index } = rowsAndInstance(this.tensor, ref);
    return { buffer: this.id, rows, param, index };
  }
}

/** The number of the parameter that a ref names; -1 for none. */
function paramOf({ param }: TensorRef, { params, name }: LogicalSection): number {
  if (param === undefined) return -1;
  let number = params.length - 1;
  while (number >= 0 && params[number]?.name !== param) number -= 1;
  if (number < 0) throw new Error(`section ${name} has no parameter ${param}`);
  return number;
}

function touchedTensors({ sections }: Pick<LogicalSchedule, 'sections'>): ReadonlySet<string> {
  const touched = new Set<string>();
  for (const { ops } of sections) {
    for (const op of ops) {
      for (const { tensor } of op.reads) touched.add(tensor);
      for (const { tensor } of op.writes) touched.add(tensor);
      for (const { tensor } of op.accumulates) touched.add(tensor);
    }
  }
  return touched;
}

/** The buffer of a tensor, without an address. */
export function toBuffer(tensor: Tensor, id: number, places: Places): Buffer {
  const { slots, chunkRows, chunkInstances, headsFirst } = tensor;
  const shape = [chunkInstances ? chunkRows : slots * chunkRows, ...tensor.inner];
  const bytes = (shape[0] ?? 0) * rowBytes({ dtype: tensor.dtype, shape });
  // A chunk that a file holds is read and written whole, at an aligned address on both sides.
  const alignment = chunkInstances ? places.alignment(tensor.home) : SMALLEST_ALIGNMENT_BYTES;
  return {
    id,
    name: tensor.name,
    pool: tensor.home,
    dtype: tensor.dtype,
    shape,
    ...(headsFirst ? { strides: [1, chunkRows], blockRows: chunkRows } : { strides: rowMajorStrides(shape) }),
    instances: chunkInstances ? slots * tensor.instances : tensor.instances,
    instanceBytes: Math.ceil(bytes / alignment) * alignment,
    offset: -1,
    scope: tensor.scope,
  };
}

const SMALLEST_ALIGNMENT_BYTES = 512;

function rowMajorStrides(shape: readonly number[]): readonly number[] {
  return shape.map((_, dim) => shape.slice(dim + 1).reduce((product, size) => product * size, 1));
}

function rowsAndInstance(tensor: Tensor, ref: TensorRef): Pick<Access, 'rows' | 'index'> {
  const count = ref.chunks.end - ref.chunks.start;
  const slot = ref.chunks.start % tensor.slots;
  if (slot + count > tensor.slots)
    throw new Error(`chunks ${ref.chunks.start}..${ref.chunks.end} of ${tensor.name} wrap around its ${tensor.slots} slots`);
  if (tensor.chunkInstances) {
    if (count !== 1) throw new Error(`chunks ${ref.chunks.start}..${ref.chunks.end} of ${tensor.name} are instances of their own`);
    return { index: slot, rows: ref.rows ?? { start: 0, end: tensor.chunkRows } };
  }
  const base = slot * tensor.chunkRows;
  const rows = ref.rows ?? { start: 0, end: count * tensor.chunkRows };
  return { index: 0, rows: { start: base + rows.start, end: base + rows.end } };
}
