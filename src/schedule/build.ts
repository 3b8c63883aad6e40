/** From a policy's logical schedule to physical sections: move data, place rows, add waits. Addresses come later. */
import { OP_ROWS } from '../catalog/ops/index.js';
import type { Link, Pool } from '../spec/pools.js';
import type { Buffer } from './buffer.js';
import type { LogicalOp, LogicalSchedule, LogicalSection } from './logical.js';
import type { Access, Attribute, Op, Section } from './op.js';
import { type Unordered, addWaits } from './passes/addWaits.js';
import { moveData } from './passes/moveData.js';
import { type Placement, placeTensors } from './passes/place.js';
import { type PolicyContext, logicalSchedule } from './policies/index.js';
import type { Table } from './program.js';
import type { Schedule } from './schedule.js';

/** Peak bytes of what an op makes inside, from its kind, its views and its attribute. */
export type ScratchFormula = (
  op: Omit<Op, 'scratchBytes' | 'waits' | 'attribute'>,
  attribute: Attribute | undefined,
  buffers: readonly Buffer[],
) => number;

export interface Machine {
  readonly pools: readonly Pool[];
  readonly links: readonly Link[];
  readonly streams: readonly string[];
}

/** A schedule without addresses and entry masks: see address/layout.ts. `write`: the logical schedule of the context, by default of training. */
export function buildSchedule(context: PolicyContext, machine: Machine, scratchBytes: ScratchFormula, write = logicalSchedule): Schedule {
  const moved = moveData(write(context), context.places, context.strategy.prefetchDepth);
  return placeSchedule(moved, context, machine, scratchBytes);
}

/** Rows of buffers for chunks of tensors, and waits, which who only asks what ops cost can do without: `order`. */
export function placeSchedule(
  logical: LogicalSchedule,
  context: PolicyContext,
  machine: Machine,
  scratchBytes: ScratchFormula,
  order = addWaits,
): Schedule {
  const placement = placeTensors(logical, context.places);
  const attributes = new Attributes();
  const placer = new OpPlacer(context, placement, attributes, scratchBytes);
  const toSection = (section: LogicalSection): Section => {
    const ops = section.ops.map((op, id) => placer.place(op, id, section));
    return { name: section.name, params: section.params, ops: order(ops) };
  };
  return {
    ...machine,
    buffers: placement.buffers,
    sections: logical.sections.map(toSection),
    attributes: attributes.records,
    tables: logical.tables.map((name) => tableOf(name, placement.buffers)),
    programs: { train: { turns: logical.turns } },
  };
}

function tableOf(name: string, buffers: readonly Buffer[]): Table {
  const buffer = buffers.find((one) => one.name === name);
  if (buffer === undefined) throw new Error(`nothing uses the table ${name}`);
  const dtype = buffer.dtype === 'float32' ? 'float32' : 'int64';
  return { name, dtype, capacity: buffer.shape[0] ?? 0, buffer: buffer.id };
}

/** Equal attributes are one record. */
class Attributes {
  readonly records: Attribute[] = [];
  private readonly numbers = new Map<string, number>();
  /** Policies use the same few objects again and again. */
  private readonly known = new Map<Attribute, number>();

  number(attribute: Attribute): number {
    const known = this.known.get(attribute);
    if (known !== undefined) return known;
    const key = JSON.stringify(attribute);
    const number = this.numbers.get(key) ?? this.records.push(attribute) - 1;
    this.numbers.set(key, number);
    this.known.set(attribute, number);
    return number;
  }
}

/** As an `order`: none. */
export function unordered(ops: readonly Unordered[]): readonly Op[] {
  return ops;
}

const NO_WAITS: readonly number[] = [];

type Growing = Omit<Unordered, 'attribute' | 'scratchBytes'> & { attribute?: number; scratchBytes: number };

class OpPlacer {
  private readonly context: PolicyContext;
  private readonly placement: Placement;
  private readonly attributes: Attributes;
  private readonly scratchBytes: ScratchFormula;

  constructor(context: PolicyContext, placement: Placement, attributes: Attributes, scratchBytes: ScratchFormula) {
    this.context = context;
    this.placement = placement;
    this.attributes = attributes;
    this.scratchBytes = scratchBytes;
  }

  place(op: LogicalOp, id: number, section: LogicalSection): Unordered {
    const { kind, tokens, kv } = op;
    const reads = this.placement.toAccesses(op.reads, section);
    const writes = this.placement.toAccesses(op.writes, section);
    const accumulates = this.placement.toAccesses(op.accumulates, section);
    const attribute = op.attribute === undefined ? undefined : this.attributes.number(op.attribute);
    const stream = this.streamOf({ kind, reads, writes });
    const placed = { id, kind, stream, tokens, reads, writes, accumulates, waits: NO_WAITS, scratchBytes: 0 };
    // Literals for what spreads say: a long section has a hundred thousand ops.
    const whole: Growing =
      kv === undefined ? placed : { id, kind, stream, tokens, reads, writes, accumulates, waits: NO_WAITS, scratchBytes: 0, kv };
    if (attribute !== undefined) whole.attribute = attribute;
    whole.scratchBytes = this.scratchBytes(whole, op.attribute, this.placement.buffers);
    return whole;
  }

  private streamOf({ kind, reads, writes }: Pick<Op, 'kind' | 'reads' | 'writes'>): string {
    const { stream } = OP_ROWS[kind];
    if (stream !== 'link') return stream;
    const poolOf = (access: Access | undefined): string => this.placement.buffers[access?.buffer ?? -1]?.pool ?? '';
    return this.context.places.streamOf(poolOf(reads[0]), poolOf(writes[0]));
  }
}
