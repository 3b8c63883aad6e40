/**
 * The slow twin of the verifier: runs a schedule's micro-step word by word, with a symbol for every value, in orders that its streams,
 * waits and entry masks allow, and tells what every op read. It knows no roles and no rules, only what happens. A symbol says how
 * the value came about (kind, layer, tokens, what was read), so that a value formed again is the same.
 */
import { bufferBytes, byteRange } from '../../src/address/bytes.js';
import { OP_KIND_NAMES, type OpKind } from '../../src/catalog/ops/index.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Op } from '../../src/schedule/op.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { sectionNamed } from '../../src/schedule/schedule.js';

/** An op of a call, or a wait of a stream; it starts when so many items of each named stream are done. */
interface Item {
  readonly number: number;
  readonly needs: readonly (readonly [stream: number, numItems: number])[];
  readonly executed?: Executed;
}

interface Executed {
  readonly op: Op;
  readonly args: readonly number[];
  readonly call: { readonly number: number; readonly layer: number | undefined };
}

/** Picks one of the streams that may go on, each with the number of its next op; waits have the number of the op behind them. */
export type Chooser = (ready: readonly Ready[]) => Ready;
export interface Ready {
  readonly stream: number;
  readonly number: number;
}

/** A symbol for what each op of the micro-step read, in program order. */
export type Reading = readonly number[];

/** Uninitialised words are negative: nothing an op writes is. */
const isGarbage = (symbol: number): boolean => symbol < 0;

export class Twin {
  private readonly schedule: Schedule;
  private readonly queues: Item[][];
  private numOps = 0;

  constructor(schedule: Schedule) {
    this.schedule = schedule;
    this.queues = schedule.streams.map(() => []);
    this.fill();
  }

  /** Throws where the streams wait for each other. */
  run(choose: Chooser, how: 'placed' | 'separate' = 'placed'): { readonly reading: Reading; readonly readsGarbage: boolean } {
    const memory = how === 'separate' ? separate(this.schedule) : arenas(this.schedule);
    const done = this.queues.map(() => 0);
    const reading = Array.from({ length: this.numOps }, () => 0);
    let readsGarbage = false;
    for (;;) {
      const ready = done.flatMap((count, stream) => {
        const item = this.queues[stream]?.[count];
        const isReady = item?.needs.every(([other, least]) => (done[other] ?? 0) >= least) === true;
        return isReady ? [{ stream, number: item.number }] : [];
      });
      if (ready.length === 0) break;
      const { stream } = choose(ready);
      const { executed, number = 0 } = this.queues[stream]?.[done[stream] ?? 0] ?? {};
      done[stream] = (done[stream] ?? 0) + 1;
      if (executed === undefined) continue;
      const read = execute(executed, memory);
      reading[number] = read.symbol;
      readsGarbage ||= read.garbage;
    }
    if (done.some((count, stream) => count < (this.queues[stream]?.length ?? 0))) throw new Error('the streams wait for each other');
    return { reading, readsGarbage };
  }

  private fill(): void {
    const { programs, streams, sections } = this.schedule;
    let number = 0;
    for (const { calls, module } of programs.train.turns) {
      for (const call of calls) {
        if (call.owner !== 'plan') continue;
        const { ops } = sectionNamed(sections, call.section);
        const before = this.queues.map(({ length }) => length);
        for (const [stream, name] of streams.entries()) {
          if (!ops.some((op) => op.stream === name)) continue;
          const mask = module === 'end' ? -1 : (call.waits[stream] ?? 0);
          this.queues[stream]?.push({
            number: this.numOps,
            needs: before.flatMap((count, other) => ((mask >> other) & 1 ? [[other, count] as const] : [])),
          });
        }
        const places: (readonly [number, number])[] = [];
        for (const op of ops) {
          const stream = streams.indexOf(op.stream);
          const needs = op.waits.map((wait) => places[wait] ?? ([0, 0] as const));
          const length = this.queues[stream]?.push({
            number: this.numOps++,
            needs,
            executed: { op, args: call.args, call: { number, layer: call.layer } },
          });
          places.push([stream, length ?? 0]);
        }
        number += 1;
      }
    }
  }
}

/** Symbols of words by buffer, instance and call. */
type Memory = (access: Access, executed: Executed) => Int32Array;

/** At the addresses of the schedule. */
function arenas({ pools, buffers }: Schedule): Memory {
  const words = new Map(pools.map(({ name, bytes }) => [name, garbage(bytes)]));
  return (access, { args }) => {
    const buffer = bufferOf(access, buffers);
    const { start, end } = byteRange(access, buffer, args);
    return words.get(buffer.pool)?.subarray(start / 4, end / 4) ?? garbage(0);
  };
}

/** Every buffer has memory of its own, and one of `call` scope in every call: what a schedule means, whatever its addresses. */
function separate({ buffers }: Schedule): Memory {
  const words = new Map<string, Int32Array>();
  return (access, { args, call }) => {
    const buffer = bufferOf(access, buffers);
    const key = `${buffer.id}/${buffer.scope === 'call' ? call.number : ''}`;
    const known = words.get(key) ?? garbage(bufferBytes(buffer));
    words.set(key, known);
    const { start, end } = byteRange(access, { ...buffer, offset: 0 }, args);
    return known.subarray(start / 4, end / 4);
  };
}

function bufferOf({ buffer }: Access, buffers: readonly Buffer[]): Buffer {
  const found = buffers[buffer];
  if (found === undefined) throw new RangeError(`no buffer ${buffer}`);
  return found;
}

function garbage(bytes: number): Int32Array {
  return Int32Array.from({ length: bytes / 4 }, (_, i) => -1 - i);
}

function execute(executed: Executed, memory: Memory): { readonly symbol: number; readonly garbage: boolean } {
  const { op, call } = executed;
  const words = (access: Access): Int32Array => memory(access, executed);
  let symbol = 1;
  let readsGarbage = false;
  for (const access of [...op.reads, ...op.accumulates]) {
    for (const word of words(access)) {
      symbol = mix(symbol, word);
      readsGarbage ||= isGarbage(word);
    }
  }
  const made = [kindNumber(op.kind), call.layer ?? -1, op.tokens.start, op.kv?.start ?? -1].reduce(mix, op.kind === 'zero' ? 0 : symbol);
  const moves = op.kind === 'copy' || op.kind === 'cast';
  const sources = moves ? op.reads.map((access) => words(access).slice()) : [];
  for (const [i, access] of op.writes.entries()) {
    const target = words(access);
    const source = sources[i];
    if (source === undefined) for (const j of target.keys()) target[j] = mix(made, i * 1000 + j);
    else target.set(source);
  }
  for (const [i, access] of op.accumulates.entries()) {
    const target = words(access);
    for (const [j, old] of target.entries()) target[j] = mix(mix(made, i * 1000 + j), old);
  }
  return { symbol, garbage: readsGarbage };
}

function kindNumber(kind: string): number {
  return OP_KIND_NAMES.indexOf(kind as OpKind);
}

/** Never negative. */
function mix(a: number, b: number): number {
  let mixed = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x165667b1, 0xc2b2ae35);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x27d4eb2f);
  return (mixed ^ (mixed >>> 13)) & 0x7fffffff;
}

/** One op after the other, as the sections list them. */
export const programOrder: Chooser = (ready) => ready.reduce((first, other) => (other.number < first.number ? other : first));

/** Streams in an order of preference that changes now and then, so that some run far behind the others. */
export function unfair(random: () => number): Chooser {
  let preference: readonly number[] = [];
  return (ready) => {
    if (preference.length === 0 || random() < 0.02) preference = Array.from({ length: 32 }, random);
    return ready.reduce((best, other) => ((preference[other.stream] ?? 0) > (preference[best.stream] ?? 0) ? other : best));
  };
}
