/** The small plan with random sections of copies, casts and zeros beside its own, over a few buffers that overlap at random addresses. */
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import type { Call, Turn } from '../../src/schedule/program.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { withMasks } from './small.js';

const ROWS = [
  { start: 0, end: 2 },
  { start: 2, end: 4 },
  { start: 0, end: 4 },
];
const MOVES = [
  { kind: 'cast', stream: 'compute', from: 'hbm', to: 'hbm' },
  { kind: 'copy', stream: 'h2d', from: 'host', to: 'hbm' },
  { kind: 'copy', stream: 'd2h', from: 'hbm', to: 'host' },
] as const;

type Unordered = Parameters<typeof addWaits>[0][number];

class Writer {
  private readonly random: () => number;

  constructor(random: () => number) {
    this.random = random;
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.random() * items.length)] as T;
  }

  /** Two of `call` scope on the device and one that lasts; one of each on the host. All in one small window of their pool. */
  buffers(plan: VerifyInput): readonly Buffer[] {
    const windowBytes = this.pick([64, 160, 640]);
    return ['hbm', 'hbm', 'hbm', 'host', 'host'].map((pool, i): Buffer => {
      const end = plan.pools.find(({ name }) => name === pool)?.bytes ?? 0;
      const offset = end + 4 * Math.floor(this.random() * (windowBytes / 4 - 3));
      const fixed = { dtype: 'float32', shape: [4], strides: [1], instances: 1, instanceBytes: 16 } as const;
      return { id: plan.buffers.length + i, name: `noise${i}`, pool, offset, scope: i % 3 === 2 ? 'step' : 'call', ...fixed };
    });
  }

  section(number: number, buffers: readonly Buffer[]): Section {
    const written: Access[] = [];
    const ops: Unordered[] = [];
    while (ops.length < 6) {
      const op = this.op(ops.length, buffers, written);
      if (op === undefined) continue;
      ops.push(op);
      written.push(...op.writes);
    }
    const some = (op: Op): Op => ({ ...op, waits: op.waits.filter(() => this.random() > 0.04) });
    return { name: `noise${number}`, params: [], ops: addWaits(ops).map(some) };
  }

  private op(id: number, buffers: readonly Buffer[], written: readonly Access[]): Unordered | undefined {
    const start = Math.floor(this.random() * 8);
    const base = { id, tokens: { start, end: start + 1 }, accumulates: [], waits: [], scratchBytes: 0 };
    const poolOf = ({ buffer }: Access): string => buffers.find((one) => one.id === buffer)?.pool ?? '';
    const anywhere = (pool: string, rows = this.pick(ROWS)): Access => {
      const { id: buffer } = this.pick(buffers.filter((one) => one.pool === pool));
      return { buffer, rows, param: -1, index: 0 };
    };
    if (this.random() < 0.35) return { ...base, kind: 'zero', stream: 'compute', reads: [], writes: [anywhere('hbm')] };
    const { kind, stream, from, to } = this.pick(MOVES);
    const known = written.filter((access) => poolOf(access) === from);
    if (known.length === 0 && this.random() < 0.99) return undefined;
    const read = known.length === 0 ? anywhere(from) : this.pick(known);
    const length = read.rows.end - read.rows.start;
    return { ...base, kind, stream, reads: [read], writes: [anywhere(to, length === 4 ? ROWS[2] : this.pick(ROWS.slice(0, 2)))] };
  }

  /** Calls of the sections among those of the plan, twice each. */
  turns(turns: readonly Turn[], sections: readonly Section[]): readonly Turn[] {
    const calls = turns.map((turn) => [...turn.calls]);
    for (const { name } of [...sections, ...sections]) {
      const into = calls[1 + Math.floor(this.random() * (calls.length - 2))] ?? [];
      into.splice(Math.floor(this.random() * (into.length + 1)), 0, { section: name, args: [], owner: 'plan', waits: [] });
    }
    return turns.map((turn, i) => ({ ...turn, calls: calls[i] ?? [] }));
  }

  /** Entry masks without some of their bits; the first call's stay full. */
  weaken(plan: VerifyInput): VerifyInput {
    let isFirst = true;
    const weaker = (call: Call): Call => {
      if (call.owner !== 'plan') return call;
      const bits = plan.streams.map((_, bit) => (isFirst || this.random() > 0.05 ? 1 << bit : 0));
      isFirst = false;
      return { ...call, waits: call.waits.map((mask) => bits.reduce((kept, bit) => kept | (mask & bit), 0)) };
    };
    const turns = plan.programs.train.turns.map((turn) => ({ ...turn, calls: turn.calls.map(weaker) }));
    return { ...plan, programs: { train: { turns } } };
  }
}

export function randomPlan(plan: VerifyInput, random: () => number): VerifyInput {
  const writer = new Writer(random);
  const buffers = writer.buffers(plan);
  const sections = [0, 1, 2].map((number) => writer.section(number, buffers));
  const whole = {
    ...plan,
    pools: plan.pools.map((pool) => (pool.name === 'disk' ? pool : { ...pool, bytes: pool.bytes + 640 })),
    buffers: [...plan.buffers, ...buffers],
    sections: [...plan.sections, ...sections],
    programs: { train: { turns: writer.turns(plan.programs.train.turns, sections) } },
  };
  return writer.weaken(withMasks(whole));
}
