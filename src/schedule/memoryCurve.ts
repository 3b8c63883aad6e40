/** Bytes alive over the time of a section, per pool: buffers that hold a value, and in HBM what ops make inside. */
import type { Buffer, Pool } from './buffer.js';
import { type Op, SECTIONS, type Section, type SectionPart } from './op.js';

/** From `seconds` on, until the next point, `bytes` are alive. */
export interface MemoryPoint {
  readonly seconds: number;
  readonly bytes: number;
}

export interface MemoryCurve {
  readonly points: readonly MemoryPoint[];
  readonly peakBytes: number;
}

export type MemoryCurves = Readonly<Record<Pool, MemoryCurve>>;

/** Start and end of each op in seconds, by its id. */
export interface OpTimes {
  readonly startSeconds: Float64Array;
  readonly endSeconds: Float64Array;
}

interface Change {
  readonly seconds: number;
  readonly bytes: number;
}

/**
 * Buffers of `step` scope count for the whole section if it lies between their first and last one; buffers of
 * `section` scope from the start of their first op to the end of their last one in each part.
 */
export function memoryCurves(section: Section, buffers: readonly Buffer[], times: OpTimes): MemoryCurves {
  const changes: Record<Pool, Change[]> = { hbm: [], host: [] };
  const base: Record<Pool, number> = { hbm: 0, host: 0 };
  for (const buffer of buffers) {
    if (buffer.scope === 'step' && spans(buffer, section)) base[buffer.pool] += buffer.instances * buffer.instanceBytes;
  }
  for (const part of section.parts) {
    for (const { buffer, from, to } of usesInPart(section, part, buffers, times)) {
      const bytes = buffer.instances * buffer.instanceBytes;
      changes[buffer.pool].push({ seconds: from, bytes }, { seconds: to, bytes: -bytes });
    }
  }
  for (const { id, scratchBytes } of section.ops) {
    if (scratchBytes === 0) continue;
    changes.hbm.push(
      { seconds: times.startSeconds[id] ?? 0, bytes: scratchBytes },
      { seconds: times.endSeconds[id] ?? 0, bytes: -scratchBytes },
    );
  }
  return { hbm: toCurve(base.hbm, changes.hbm), host: toCurve(base.host, changes.host) };
}

function spans(buffer: Buffer, section: Section): boolean {
  const indices = buffer.sections.map((name) => SECTIONS.indexOf(name));
  const own = SECTIONS.indexOf(section.name);
  return Math.min(...indices) <= own && own <= Math.max(...indices);
}

function usesInPart(section: Section, part: SectionPart, buffers: readonly Buffer[], { startSeconds, endSeconds }: OpTimes) {
  const uses = new Map<number, { readonly buffer: Buffer; from: number; to: number }>();
  for (let id = part.start; id < part.end; id++) {
    const op = section.ops[id] as Op;
    const [from, to] = [startSeconds[id] ?? 0, endSeconds[id] ?? 0];
    for (const { buffer: bufferId } of [...op.reads, ...op.writes, ...op.accumulates]) {
      const buffer = buffers[bufferId];
      if (buffer === undefined || buffer.scope === 'step') continue;
      const use = uses.get(bufferId);
      if (use === undefined) {
        uses.set(bufferId, { buffer, from, to });
        continue;
      }
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
