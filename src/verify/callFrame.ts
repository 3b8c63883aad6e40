/** One call that speaks for all that alias as it does: its memory cut into cells, and which slots come with a value and leave one. */
import { type Cells, cellsOf, edgeAt, slotAddress, slotEnd } from './cells.js';
import { bufferAt, type Context } from './context.js';
import type { FlatSection } from './flat.js';
import { atOp, roleText } from './text.js';
import type { CallName } from './violation.js';
import type { Slot } from './viewTable.js';

export interface CallFrame {
  readonly flat: FlatSection;
  readonly args: readonly number[];
  readonly call: CallName;
  readonly context: Context;
  readonly cells: Cells;
  /** By slot whether it may hold a value when the call begins. */
  readonly hasEntry: readonly boolean[];
  /** Slots that must hold one when it ends. */
  readonly exits: readonly number[];
}

export function frameOf(flat: FlatSection, args: readonly number[], call: CallName, context: Context): CallFrame {
  const { slots } = flat.views;
  const { params } = flat.section;
  const isStep = ({ buffer }: Slot): boolean => bufferAt(context, buffer).scope === 'step';
  const exits = slots.flatMap(({ param }, slot) => (params[param]?.exit === undefined ? [] : [slot]));
  const whole = exits.map((slot) => slots[slot] as Slot);
  return {
    flat,
    args,
    call,
    context,
    cells: cellsOf(flat, args, whole, context),
    hasEntry: slots.map((slot) => isStep(slot) && (slot.param < 0 || params[slot.param]?.entry !== undefined)),
    exits,
  };
}

/** Every slot that must leave a value has written all of it, last of all. `owner`: by cell the slot that did. */
export function checkExits(frame: CallFrame, owner: Int32Array): void {
  for (const slot of frame.exits) checkExit(slot, frame, owner);
}

function checkExit(number: number, frame: CallFrame, owners: Int32Array): void {
  const { flat, cells, args, context } = frame;
  const slot = flat.views.slots[number] as Slot;
  const exit = flat.section.params[slot.param]?.exit;
  const start = slotAddress(slot, args, context);
  const end = edgeAt(cells.edges, slotEnd(slot, args, context));
  for (let cell = edgeAt(cells.edges, start); cell < end; cell++) {
    const owner = owners[cell] as number;
    if (owner === number || exit === undefined) continue;
    const row = Math.floor(((cells.edges[cell] as number) - start) / (context.rowBytes[slot.buffer] as number));
    const why = owner >= 0 ? `row ${row} is overwritten through ${slotText(owner, frame)}` : `row ${row} is not written`;
    const held = `must hold ${roleText(exit)} (counted from the call's layer) when the call ends`;
    context.violations.add(atOp(flat, slot.op, `${slotText(number, frame)} ${held}, and ${why}`, context, frame.call));
    return;
  }
}

export function slotText(slot: number, { flat, context }: CallFrame): string {
  const { buffer, param, index } = flat.views.slots[slot] as Slot;
  const name = bufferAt(context, buffer).name;
  if (param < 0) return index === 0 ? name : `${name}#${index}`;
  return `${name}#${flat.section.params[param]?.name}${index === 0 ? '' : `+${index}`}`;
}
