/** Turns tensors into buffers and refs into row ranges. Offsets stay unset: the layout is a later stage. */
import { DTYPE_BYTES } from '../../spec/dtype.js';
import type { Buffer } from '../buffer.js';
import type { LogicalSchedule, Tensor, TensorRef } from '../logical.js';
import { type Access, SECTIONS, type SectionName } from '../op.js';

/** Every buffer starts at a multiple of this many bytes, and so does every instance of it. */
export const ALIGNMENT_BYTES = 512;

export interface Placement {
  readonly buffers: readonly Buffer[];
  readonly toAccess: (ref: TensorRef) => Access;
}

export function placeTensors(schedule: LogicalSchedule): Placement {
  const touched = sectionsByTensor(schedule);
  const used = schedule.tensors.filter((tensor) => touched.has(tensor.name));
  const buffers = used.map((tensor, id) => toBuffer(tensor, id, touched.get(tensor.name) as ReadonlySet<SectionName>));
  const placed = new Map(used.map((tensor, id) => [tensor.name, new PlacedTensor(tensor, id)]));
  return {
    buffers,
    toAccess: (ref) => {
      const found = placed.get(ref.tensor);
      if (found === undefined) throw new Error(`a policy names the tensor ${ref.tensor}, which is not declared`);
      return found.toAccess(ref);
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

  toAccess(ref: TensorRef): Access {
    const { start, end } = ref.chunks;
    const isOneChunk = ref.bind === 'fixed' && ref.index === 0 && ref.rows === undefined && end - start === 1;
    const known = isOneChunk ? this.chunks[start] : undefined;
    if (known !== undefined) return known;
    const access = { buffer: this.id, rows: rowRange(this.tensor, ref), bind: ref.bind, index: ref.index };
    if (isOneChunk) this.chunks[start] = access;
    return access;
  }
}

function sectionsByTensor(schedule: LogicalSchedule): ReadonlyMap<string, ReadonlySet<SectionName>> {
  const touched = new Map<string, Set<SectionName>>();
  for (const section of schedule.sections) {
    const touch = ({ tensor }: TensorRef): void => {
      const sections = touched.get(tensor);
      if (sections === undefined) touched.set(tensor, new Set([section.name]));
      else sections.add(section.name);
    };
    for (const part of section.parts) {
      for (const op of part.ops) {
        op.reads.forEach(touch);
        op.writes.forEach(touch);
        op.accumulates.forEach(touch);
      }
    }
  }
  return touched;
}

/** The buffer of a tensor, without an address. */
export function toBuffer(tensor: Tensor, id: number, sections: ReadonlySet<SectionName>): Buffer {
  const shape = [tensor.slots * tensor.chunkRows, ...tensor.inner];
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[tensor.dtype]);
  return {
    id,
    name: tensor.name,
    pool: tensor.home,
    dtype: tensor.dtype,
    shape,
    strides: rowMajorStrides(shape),
    instances: tensor.instances,
    instanceBytes: Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES,
    offset: -1,
    sections: SECTIONS.filter((name) => sections.has(name)),
    scope: tensor.scope,
  };
}

function rowMajorStrides(shape: readonly number[]): readonly number[] {
  return shape.map((_, dim) => shape.slice(dim + 1).reduce((product, size) => product * size, 1));
}

function rowRange(tensor: Tensor, ref: TensorRef): Access['rows'] {
  const count = ref.chunks.end - ref.chunks.start;
  const slot = ref.chunks.start % tensor.slots;
  if (slot + count > tensor.slots)
    throw new Error(`chunks ${ref.chunks.start}..${ref.chunks.end} of ${tensor.name} wrap around its ${tensor.slots} slots`);
  const base = slot * tensor.chunkRows;
  return ref.rows === undefined
    ? { start: base, end: base + count * tensor.chunkRows }
    : { start: base + ref.rows.start, end: base + ref.rows.end };
}
