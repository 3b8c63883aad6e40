/** Turns tensors into buffers and refs into row ranges. Offsets stay unset: the layout is a later stage. */
import { rowBytes } from '../../catalog/ops/views.js';
import type { Buffer } from '../buffer.js';
import type { LogicalSchedule, LogicalSection, Tensor, TensorRef } from '../logical.js';
import type { Access } from '../op.js';
import type { Places } from '../places.js';

export interface Placement {
  readonly buffers: readonly Buffer[];
  readonly toAccess: (ref: TensorRef, section: LogicalSection) => Access;
}

export function placeTensors(schedule: LogicalSchedule, places: Places): Placement {
  const touched = touchedTensors(schedule);
  const used = schedule.tensors.filter(({ name }) => touched.has(name));
  const placed = new Map(used.map((tensor, id) => [tensor.name, new PlacedTensor(tensor, id)]));
  return {
    buffers: used.map((tensor, id) => toBuffer(tensor, id, places)),
    toAccess: (ref, section) => {
      const found = placed.get(ref.tensor);
      if (found === undefined) throw new Error(`a policy names the tensor ${ref.tensor}, which is not declared`);
      return found.toAccess(ref, section);
    },
  };
}

/** A tensor with the id of its buffer. */
class PlacedTensor {
  private readonly tensor: Tensor;
  private readonly id: number;
  /** Whole chunks of instance 0 by number. Most accesses are one of these few: a long schedule has tens of thousands that share them. */
  private readonly chunks: Access[] = [];

  constructor(tensor: Tensor, id: number) {
    this.tensor = tensor;
    this.id = id;
  }

  toAccess(ref: TensorRef, { params, name }: LogicalSection): Access {
    const { start, end } = ref.chunks;
    const isOneChunk = ref.param === undefined && ref.rows === undefined && end - start === 1;
    const known = isOneChunk ? this.chunks[start] : undefined;
    if (known !== undefined) return known;
    const param = ref.param === undefined ? -1 : params.findIndex((one) => one.name === ref.param);
    if (ref.param !== undefined && param < 0) throw new Error(`section ${name} has no parameter ${ref.param}`);
    const access = { buffer: this.id, param, ...rowsAndInstance(this.tensor, ref) };
    if (isOneChunk) this.chunks[start] = access;
    return access;
  }
}

function touchedTensors(schedule: LogicalSchedule): ReadonlySet<string> {
  const touched = new Set<string>();
  for (const { ops } of schedule.sections) {
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
  const { slots, chunkRows, chunkInstances } = tensor;
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
    strides: rowMajorStrides(shape),
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
