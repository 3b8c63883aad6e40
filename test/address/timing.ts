/**
 * Runs a laid out schedule for two micro-steps as a machine would: each stream takes its ops in order, an op starts when its waits are
 * over, a call's first op on a stream when the streams in its entry mask have done what they were given before. Nothing else joins
 * streams. Written apart from the layout's own lifetimes and clocks.
 */
import { rowBytes } from '../../src/catalog/ops/index.js';
import type { Access, Op } from '../../src/schedule/op.js';
import type { Call } from '../../src/schedule/program.js';
import { type Schedule, sectionNamed } from '../../src/schedule/schedule.js';

/** Whether an entry mask holds a stream that has no op in the call: a queue does, an executor that waits before a first op does not. */
export type Gate = 'atEntry' | 'beforeFirstOp';

interface Touch {
  readonly buffer: number;
  readonly pool: string;
  /** In cells. */
  readonly start: number;
  readonly end: number;
  readonly changes: boolean;
}

interface Issued {
  readonly text: string;
  readonly stream: number;
  readonly call: number;
  readonly microStep: number;
  /** Positions of issued ops that are complete before it starts. */
  readonly after: readonly number[];
  readonly touches: readonly Touch[];
}

const CELL_BYTES = 16;
const NUM_MICRO_STEPS = 2;

/** The ops of both micro-steps, in the order that the host issues them. ZeRO's own calls touch nothing of the plan's. */
export function issue(schedule: Schedule, gate: Gate = 'atEntry'): readonly Issued[] {
  const { streams, sections, programs } = schedule;
  const issued: Issued[] = [];
  /** What is complete when all that a stream was given is: its last op, and the masks that no op has followed yet. */
  let queued: readonly (readonly number[])[] = streams.map(() => []);
  let numCalls = 0;
  for (let microStep = 0; microStep < NUM_MICRO_STEPS; microStep++) {
    for (const call of programs.train.turns.flatMap(({ calls }) => calls)) if (call.owner === 'plan') run(call, microStep);
  }
  return issued;

  function run(call: Call, microStep: number): void {
    const { ops } = sectionNamed(sections, call.section);
    const used = new Set(ops.map(({ stream }) => stream));
    const before = queued;
    const entered = streams.map((stream, s) => {
      const holds = gate === 'atEntry' || used.has(stream);
      return [...(queued[s] ?? []), ...(holds ? streams.flatMap((_, t) => (bit(call.waits[s] ?? 0, t) ? (before[t] ?? []) : [])) : [])];
    });
    const first = issued.length;
    for (const op of ops) {
      const s = streams.indexOf(op.stream);
      const after = [...(entered[s] ?? []), ...op.waits.map((id) => first + id)];
      const text = `${call.section}${call.layer === undefined ? '' : ` of layer ${call.layer}`} op ${op.id} ${op.kind} on ${op.stream}`;
      issued.push({ text, stream: s, call: numCalls, microStep, after, touches: touchesOf(op, call, schedule) });
      entered[s] = [first + op.id];
    }
    queued = entered;
    numCalls += 1;
  }
}

function bit(mask: number, number: number): boolean {
  return Math.floor(mask / 2 ** number) % 2 === 1;
}

function touchesOf(op: Op, { args }: Call, { buffers }: Schedule): readonly Touch[] {
  const touch =
    (changes: boolean) =>
    (access: Access): Touch => {
      const buffer = buffers[access.buffer];
      if (buffer === undefined) throw new Error(`no buffer ${access.buffer}`);
      const instance = access.param < 0 ? access.index : access.index + (args[access.param] ?? Number.NaN);
      const from = buffer.offset + instance * buffer.instanceBytes;
      const row = rowBytes(buffer);
      const start = Math.floor((from + access.rows.start * row) / CELL_BYTES);
      return { buffer: access.buffer, pool: buffer.pool, start, end: Math.ceil((from + access.rows.end * row) / CELL_BYTES), changes };
    };
  return [...op.reads.map(touch(false)), ...op.writes.map(touch(true)), ...op.accumulates.map(touch(true))];
}

/** Pairs of ops that touch a common byte, one changing it, of which the later does not surely start after the earlier has ended. */
export function races(schedule: Schedule, issued: readonly Issued[]): readonly string[] {
  const numStreams = schedule.streams.length;
  /** Row i: for each stream the position of its latest op that is complete when op i starts. */
  const clocks = new Int32Array(issued.length * numStreams).fill(-1);
  issued.forEach(({ after }, i) => {
    for (const done of after) {
      for (let s = 0; s < numStreams; s++) {
        const known = s === issued[done]?.stream ? done : (clocks[done * numStreams + s] ?? -1);
        if (known > (clocks[i * numStreams + s] ?? -1)) clocks[i * numStreams + s] = known;
      }
    }
  });
  return conflicts(schedule, issued, (earlier, later) => (clocks[later * numStreams + (issued[earlier]?.stream ?? 0)] ?? -1) >= earlier);
}

/** The same for one random timing: an op takes any time from next to nothing to much. */
export function overlaps(schedule: Schedule, issued: readonly Issued[], random: () => number): readonly string[] {
  const starts = new Float64Array(issued.length);
  const ends = new Float64Array(issued.length);
  issued.forEach(({ after }, i) => {
    starts[i] = after.reduce((latest, done) => Math.max(latest, ends[done] ?? 0), 0);
    ends[i] = (starts[i] ?? 0) + (random() < 0.3 ? 0.001 : random() ** 4 * 10);
  });
  return conflicts(schedule, issued, (earlier, later) => (ends[earlier] ?? 0) <= (starts[later] ?? 0));
}

/** The last op that changed each cell and, by stream, the last that read it since. */
interface Cells {
  readonly changed: Int32Array;
  readonly read: readonly Int32Array[];
}

function conflicts(
  { pools, streams }: Schedule,
  issued: readonly Issued[],
  inOrder: (earlier: number, later: number) => boolean,
): readonly string[] {
  const cells = new Map(
    pools.map(({ name, bytes }): [string, Cells] => {
      const fresh = (): Int32Array => new Int32Array(Math.ceil(bytes / CELL_BYTES) + 1).fill(-1);
      return [name, { changed: fresh(), read: streams.map(fresh) }];
    }),
  );
  const found = new Set<string>();
  for (const [i, { stream, touches }] of issued.entries()) {
    for (const { pool, start, end, changes } of touches) {
      const { changed, read } = cells.get(pool) as Cells;
      for (let cell = start; cell < end; cell++) {
        meet(changed[cell] ?? -1, i);
        if (changes) {
          for (const reads of read) {
            meet(reads[cell] ?? -1, i);
            reads[cell] = -1;
          }
          changed[cell] = i;
        } else (read[stream] as Int32Array)[cell] = i;
      }
    }
  }
  return [...found];

  function meet(earlier: number, later: number): void {
    if (earlier >= 0 && earlier !== later && !inOrder(earlier, later)) found.add(`${issued[earlier]?.text} and ${issued[later]?.text}`);
  }
}

/**
 * Buffers that share bytes while both hold something: in the order of issue, one of call scope from its first to its last use in a
 * call, one of step scope in a micro-step.
 */
export function clobbered({ buffers }: Schedule, issued: readonly Issued[]): readonly string[] {
  const lives = new Map<string, { readonly buffer: number; readonly from: number; to: number }>();
  issued.forEach(({ call, microStep, touches }, i) => {
    for (const { buffer } of touches) {
      const key = `${buffer}/${buffers[buffer]?.scope === 'call' ? `call ${call}` : `step ${microStep}`}`;
      const life = lives.get(key);
      if (life === undefined) lives.set(key, { buffer, from: i, to: i });
      else life.to = i;
    }
  });
  const sorted = [...lives.values()].sort((a, b) => a.from - b.from);
  const found = new Set<string>();
  let alive: typeof sorted = [];
  for (const one of sorted) {
    alive = alive.filter(({ to }) => to >= one.from);
    for (const other of alive) {
      if (other.buffer !== one.buffer && shareBytes(other.buffer, one.buffer)) {
        found.add(`${buffers[other.buffer]?.name} and ${buffers[one.buffer]?.name}`);
      }
    }
    alive.push(one);
  }
  return [...found];

  function shareBytes(i: number, j: number): boolean {
    const [a, b] = [buffers[i], buffers[j]];
    if (a === undefined || b === undefined || a.pool !== b.pool) return false;
    return a.offset < b.offset + b.instances * b.instanceBytes && b.offset < a.offset + a.instances * a.instanceBytes;
  }
}
