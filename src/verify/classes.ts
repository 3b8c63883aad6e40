/**
 * Calls of a section that alias alike: wherever two of them differ, the views of the section share the same bytes with one another, so
 * that one of them speaks for all. A section that runs for eighty layers is mostly one class.
 */
import { slotEnd } from './cells.js';
import { bufferAt, type Context } from './context.js';
import type { FlatSection } from './flat.js';
import type { Slot } from './viewTable.js';

/** All that a section touches through one parameter (or none) in one buffer: bytes from the instance that the argument names. */
interface Group {
  readonly slot: Slot;
  start: number;
  end: number;
}

/** A text that is equal for calls that alias alike. */
export function aliasing(flat: FlatSection, context: Context): (args: readonly number[]) => string {
  const groups = groupsOf(flat, context);
  return (args) => {
    const addresses = groups.map((group) => addressOf(group, args, context));
    let key = '';
    for (let i = 0; i < groups.length; i++) {
      const a = groups[i] as Group;
      const from = addresses[i] as number;
      for (let j = i + 1; j < groups.length; j++) {
        const b = groups[j] as Group;
        const to = addresses[j] as number;
        if (from + a.start < to + b.end && to + b.start < from + a.end && mayDiffer(a, b, context)) key += `${i}/${j}:${to - from} `;
      }
    }
    return key;
  };
}

function mayDiffer(a: Group, b: Group, { poolOf }: Context): boolean {
  return poolOf[a.slot.buffer] === poolOf[b.slot.buffer] && (a.slot.param >= 0 || b.slot.param >= 0);
}

function addressOf({ slot: { buffer, param } }: Group, args: readonly number[], context: Context): number {
  return (context.base[buffer] as number) + (param < 0 ? 0 : (args[param] ?? 0)) * bufferAt(context, buffer).instanceBytes;
}

function groupsOf({ views }: FlatSection, context: Context): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const slot of views.slots) {
    const { buffer, param, index } = slot;
    const key = `${buffer}/${param}`;
    // Whole instances: exit values are checked to their last row.
    const start = index * bufferAt(context, buffer).instanceBytes;
    const end = start + slotEnd({ ...slot, param: -1, index: 0 }, [], context) - (context.base[buffer] as number);
    const group = groups.get(key) ?? { slot, start, end };
    groups.set(key, group);
    group.start = Math.min(group.start, start);
    group.end = Math.max(group.end, end);
  }
  return [...groups.values()];
}
