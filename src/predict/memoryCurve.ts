/** Bytes alive over the time of one call, per pool: buffers that hold a value, and on the device what ops make inside. */
import { devicePool } from '../catalog/pools.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Section } from '../schedule/op.js';
import type { Schedule } from '../schedule/schedule.js';
import { sectionNamed } from '../schedule/schedule.js';
import type { OpTimes } from './callRun.js';

/** From `seconds` on, until the next point, `bytes` are alive. */
export interface MemoryPoint {
  readonly seconds: number;
  readonly bytes: number;
}

export interface MemoryCurve {
  readonly points: readonly MemoryPoint[];
  readonly peakBytes: number;
}

/** By pool. */
export type MemoryCurves = Readonly<Record<string, MemoryCurve>>;

interface Change {
  readonly seconds: number;
  readonly bytes: number;
}

/**
 * Of call number `callNumber` of the training program. Buffers of `step` scope count for the whole call if it lies between their
 * first and last use; buffers of `call` scope from the start of their first op to the end of their last one.
 */
export function memoryCurves(schedule: Schedule, callNumber: number, times: OpTimes): MemoryCurves {
  const { pools, buffers } = schedule;
  const calls = planCallsOf(schedule);
  const section = sectionNamed(schedule.sections, calls[callNumber]?.section ?? '');
  const changes = new Map<string, Change[]>(pools.map(({ name }) => [name, []]));
  const base = new Map<string, number>(pools.map(({ name }) => [name, 0]));
  const alive = stepBuffersAlive(schedule, calls, callNumber);
  for (const { id, pool, scope, instances, instanceBytes } of buffers) {
    if (scope === 'step' && alive.has(id)) base.set(pool, (base.get(pool) ?? 0) + instances * instanceBytes);
  }
  for (const { buffer, from, to } of callUses(section, buffers, times)) {
    const bytes = buffer.instances * buffer.instanceBytes;
    changes.get(buffer.pool)?.push({ seconds: from, bytes }, { seconds: to, bytes: -bytes });
  }
  for (const { id, scratchBytes } of section.ops) {
    if (scratchBytes === 0) continue;
    const [from, to] = [times.startSeconds[id] ?? 0, times.endSeconds[id] ?? 0];
    changes.get(devicePool(pools))?.push({ seconds: from, bytes: scratchBytes }, { seconds: to, bytes: -scratchBytes });
  }
  return Object.fromEntries(pools.map(({ name }) => [name, toCurve(base.get(name) ?? 0, changes.get(name) ?? [])]));
}

/** Calls that the worker runs, in order; `callNumber` counts these. */
export function planCallsOf({ programs }: Pick<Schedule, 'programs'>) {
  return programs.train.turns.flatMap(({ calls }) => calls).filter(({ owner }) => owner === 'plan');
}

function stepBuffersAlive(schedule: Schedule, calls: readonly { readonly section: string }[], callNumber: number): ReadonlySet<number> {
  const touched = new Map(schedule.sections.map((section) => [section.name, buffersOf(section)] as const));
  const union = (part: readonly { readonly section: string }[]): Set<number> =>
    new Set([...new Set(part.map(({ section }) => section))].flatMap((name) => [...(touched.get(name) ?? [])]));
  const later = union(calls.slice(callNumber));
  return new Set([...union(calls.slice(0, callNumber + 1))].filter((id) => later.has(id)));
}

function buffersOf({ ops }: Section): ReadonlySet<number> {
  const ids = new Set<number>();
  for (const op of ops) for (const { buffer } of accessesOf(op)) ids.add(buffer);
  return ids;
}

function accessesOf({ reads, writes, accumulates }: Section['ops'][number]) {
  return [...reads, ...writes, ...accumulates];
}

function callUses(section: Section, buffers: readonly Buffer[], { startSeconds, endSeconds }: OpTimes) {
  const uses = new Map<number, { readonly buffer: Buffer; from: number; to: number }>();
  for (const op of section.ops) {
    const [from, to] = [startSeconds[op.id] ?? 0, endSeconds[op.id] ?? 0];
    for (const { buffer: id } of accessesOf(op)) {
      const buffer = buffers[id];
      if (buffer === undefined || buffer.scope === 'step') continue;
      const use = uses.get(id) ?? { buffer, from, to };
      uses.set(id, use);
      use.from = Math.min(use.from, from);
      use.to = Math.max(use.to, to);
    }
  }
  return [...uses.values()];
}

/** At equal times frees come first: what ends at t and what starts at t are not alive together. */
function toCurve(base: number, changes: readonly Change[]): MemoryCurve {
  const sorted = [...changes].sort((a, b) => a.seconds - b.seconds || a.bytes - b.bytes);
  const points: MemoryPoint[] = [{ seconds: 0, bytes: base }];
  let bytes = base;
  for (const change of sorted) {
    bytes += change.bytes;
    if (points.at(-1)?.seconds === change.seconds) points.pop();
    points.push({ seconds: change.seconds, bytes });
  }
  return { points, peakBytes: points.reduce((peak, point) => Math.max(peak, point.bytes), 0) };
}
