/** Gradients of weights that were added to a region reach emitGrads: nothing zeroes or overwrites them before, and none is left behind. */
import type { Access, Op } from '../schedule/op.js';
import { bufferAt, type Context } from './context.js';
import type { FlatSection } from './flat.js';
import type { RunCall } from './programCells.js';
import { gradientViews } from './regions.js';
import { atOp } from './text.js';

interface Event {
  readonly op: number;
  readonly kind: 'add' | 'overwrite' | 'emit';
  readonly access: Access;
}

/** Elements [start, end) that wait for emitGrads. */
interface Pending {
  readonly start: number;
  readonly end: number;
  readonly op: number;
  readonly from: RunCall;
}

export function checkGradients(calls: readonly RunCall[], context: Context): void {
  const eventsOf = new Map<FlatSection, readonly Event[]>();
  const regions = gradientBuffers(calls);
  const pending = new Map<string, readonly Pending[]>();
  for (const now of calls) {
    const events = eventsOf.get(now.flat) ?? findEvents(now.flat, regions);
    eventsOf.set(now.flat, events);
    for (const event of events) meet(event, now, pending, context);
    for (const [key, left] of pending) if (bufferAt(context, Number(key.split('/')[0])).scope === 'call') drop(key, left, pending, context);
  }
  for (const [key, left] of pending) drop(key, left, pending, context);
}

/** Buffers that some op adds gradients of weights to. */
function gradientBuffers(calls: readonly RunCall[]): ReadonlySet<number> {
  const buffers = new Set<number>();
  for (const flat of new Set(calls.map((call) => call.flat))) {
    if (![...flat.firstOfKind.values()].some((op) => gradientViews(op).length > 0)) continue;
    for (const op of flat.section.ops) for (const { buffer } of gradientViews(op)) buffers.add(buffer);
  }
  return buffers;
}

/** What happens to gradient regions in a section, but for additions to elements that wait already. */
function findEvents({ section, views, opViews, firstRead }: FlatSection, regions: ReadonlySet<number>): readonly Event[] {
  const events: Event[] = [];
  const waiting = new Set<number>();
  const inRegion = Uint8Array.from(views.buffer, (buffer) => (regions.has(buffer) ? 1 : 0));
  for (const op of section.ops) {
    const [first, end] = [firstRead[op.id] as number, firstRead[op.id + 1] as number];
    let touches = false;
    for (let i = first; i < end; i++) touches ||= inRegion[opViews[i] as number] === 1;
    if (!touches) continue;
    for (const event of eventsOfOp(op, regions)) {
      const view = views.numberOf(event.access, op.id);
      if (event.kind !== 'add') waiting.clear();
      else if (waiting.has(view)) continue;
      else waiting.add(view);
      events.push(event);
    }
  }
  return events;
}

function eventsOfOp(op: Op, regions: ReadonlySet<number>): readonly Event[] {
  const event =
    (kind: Event['kind']) =>
    (access: Access): Event => ({ op: op.id, kind, access });
  return [
    ...(op.kind === 'emitGrads' ? op.reads.map(event('emit')) : []),
    ...op.writes.filter(({ buffer }) => regions.has(buffer)).map(event('overwrite')),
    ...gradientViews(op).map(event('add')),
  ];
}

function meet({ op, kind, access }: Event, now: RunCall, pending: Map<string, readonly Pending[]>, context: Context): void {
  const { buffer, param, index, rows } = access;
  const key = `${buffer}/${index + (param < 0 ? 0 : (now.call.args[param] ?? 0))}`;
  const known = pending.get(key) ?? [];
  const lost = known.find(({ start, end }) => start < rows.end && rows.start < end);
  if (kind === 'overwrite' && lost !== undefined) {
    const added = `op ${lost.op} of ${lost.from.call.section} added gradients`;
    const problem = `overwrites elements of ${bufferAt(context, buffer).name} to which ${added} that were not handed over`;
    context.violations.add(atOp(now.flat, op, problem, context, now.name));
  }
  const rest = known.flatMap((one) => [
    ...(one.start < rows.start ? [{ ...one, end: Math.min(one.end, rows.start) }] : []),
    ...(rows.end < one.end ? [{ ...one, start: Math.max(one.start, rows.end) }] : []),
  ]);
  pending.set(key, kind === 'add' ? [...rest, { ...rows, op, from: now }] : rest);
}

function drop(key: string, left: readonly Pending[], pending: Map<string, readonly Pending[]>, context: Context): void {
  pending.delete(key);
  for (const { from, op, start, end } of left) {
    const name = bufferAt(context, Number(key.split('/')[0])).name;
    const problem = `adds gradients to elements ${start}..${end} of ${name}, which no emitGrads hands over afterwards`;
    context.violations.add(atOp(from.flat, op, problem, context, from.name));
  }
}
