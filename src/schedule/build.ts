/** From a policy's logical schedule to physical sections: move data, place rows, add waits. */
import type { Buffer } from './buffer.js';
import type { LogicalOp, LogicalSection } from './logical.js';
import { OP_KINDS, type Op, type Section, type SectionName, type SectionPart } from './op.js';
import { addWaits } from './passes/addWaits.js';
import { moveData } from './passes/moveData.js';
import { type Placement, placeTensors } from './passes/place.js';
import { type PolicyContext, logicalSchedule } from './policies/index.js';

/** Peak bytes of what an op makes inside, from its kind and its views. */
export type ScratchFormula = (op: Omit<Op, 'scratchBytes' | 'waits'>, buffers: readonly Buffer[]) => number;

export interface BuiltSchedule {
  readonly buffers: readonly Buffer[];
  readonly schedule: Readonly<Record<SectionName, Section>>;
}

export function buildSchedule(context: PolicyContext, scratchBytes: ScratchFormula): BuiltSchedule {
  const logical = moveData(logicalSchedule(context), context.strategy.prefetchDepth);
  const placement = placeTensors(logical);
  const sections = logical.sections.map((section) => [section.name, toSection(section, placement, scratchBytes)] as const);
  return { buffers: placement.buffers, schedule: Object.fromEntries(sections) as Record<SectionName, Section> };
}

function toSection(section: LogicalSection, placement: Placement, scratchBytes: ScratchFormula): Section {
  const ops: Op[] = [];
  const parts: SectionPart[] = [];
  for (const part of section.parts) {
    const start = ops.length;
    const placed = part.ops.map((op, i) => toPhysical(op, start + i, placement, scratchBytes));
    for (const op of addWaits(placed)) ops.push(op);
    parts.push({ layerSlot: part.layerSlot, start, end: ops.length });
  }
  return { name: section.name, ops, parts };
}

function toPhysical(op: LogicalOp, id: number, { toAccess, buffers }: Placement, scratchBytes: ScratchFormula): Omit<Op, 'waits'> {
  const placed = {
    id,
    kind: op.kind,
    stream: OP_KINDS[op.kind].stream,
    layerSlot: op.layerSlot,
    tokens: op.tokens,
    reads: op.reads.map(toAccess),
    writes: op.writes.map(toAccess),
    accumulates: op.accumulates.map(toAccess),
    scratchBytes: 0,
  };
  const whole: Omit<Op, 'waits' | 'scratchBytes'> & { scratchBytes: number } = op.kv === undefined ? placed : { ...placed, kv: op.kv };
  whole.scratchBytes = scratchBytes(whole, buffers);
  return whole;
}
