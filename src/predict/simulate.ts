/** The whole program on its streams: calls in order, entry masks between them, and what ZeRO adds. */
import type { Call, Program, Turn } from '../schedule/program.js';
import type { OpKind } from '../catalog/ops/index.js';
import { CallMemo } from './callMemo.js';
import { type CallEntry, type CallRun, type OpTimes, runCall } from './callRun.js';
import type { Device } from './device.js';
import { runDuplexCall } from './duplexRun.js';
import type { SectionArrays } from './sectionArrays.js';
import type { ZeroCosts } from './zeroCosts.js';

export interface SimulateInput {
  readonly program: Program;
  readonly sections: ReadonlyMap<string, SectionArrays>;
  readonly numStreams: number;
  readonly device: Device;
  readonly zero: ZeroCosts;
  /** External ops of a section that ZeRO runs, with their streams. */
  readonly external: ReadonlyMap<string, readonly { readonly kind: OpKind; readonly stream: number }[]>;
  /** What is left out, to see what it costs. */
  readonly free?: { readonly copies?: boolean; readonly host?: boolean };
}

/** Of all calls of a section in one micro-step. */
export interface SectionRun {
  readonly calls: number;
  readonly advanceSeconds: number;
  /** By stream. */
  readonly busySeconds: Float64Array;
}

export interface ProgramRun {
  /** Of one micro-step, and of the turns of the end. */
  readonly microStepSeconds: number;
  readonly endSeconds: number;
  readonly sections: ReadonlyMap<string, SectionRun>;
  /** Calls that were simulated; the others were like one of them. */
  readonly numSimulated: number;
}

export function simulateProgram(input: SimulateInput): ProgramRun {
  return new Simulation(input).run();
}

interface Sums {
  calls: number;
  advanceSeconds: number;
  readonly busySeconds: Float64Array;
}

class Simulation {
  private readonly input: SimulateInput;
  private readonly memo: CallMemo;
  private readonly times: OpTimes;
  private readonly sums = new Map<string, Sums>();
  /** By stream: end of what is queued on it; and when it could go on, masks counted. */
  private readonly busyUntil: Float64Array;
  private readonly free: Float64Array;
  private host = 0;
  private now = 0;

  constructor(input: SimulateInput) {
    this.input = input;
    this.memo = new CallMemo(input.device);
    this.busyUntil = new Float64Array(input.numStreams);
    this.free = new Float64Array(input.numStreams);
    const most = Math.max(0, ...[...input.sections.values()].map(({ numOps }) => numOps));
    this.times = { startSeconds: new Float64Array(most), endSeconds: new Float64Array(most) };
  }

  run(): ProgramRun {
    const turns = this.input.program.turns;
    for (const turn of turns) if (turn.module !== 'end') this.runTurn(turn);
    const microStepSeconds = this.now;
    this.join();
    for (const turn of turns) if (turn.module === 'end') this.runTurn(turn);
    const endSeconds = this.now - microStepSeconds;
    return { microStepSeconds, endSeconds, sections: this.sums, numSimulated: this.memo.numRuns };
  }

  /** ZeRO's work beside a turn is exposed as far as it lasts longer than the turn's own; other work of it stands alone. */
  private runTurn(turn: Turn): void {
    const before = this.now;
    const beside: { readonly section: string; seconds: number }[] = [];
    for (const call of turn.calls) {
      if (call.owner === 'plan') this.runPlanCall(call);
      else beside.push(...this.runZeroCall(call, turn));
    }
    let hidden = this.now - before;
    for (const { section, seconds } of beside) {
      this.delay(section, Math.max(0, seconds - hidden));
      hidden = Math.max(0, hidden - seconds);
    }
  }

  private runZeroCall({ section }: Call, turn: Turn): readonly { readonly section: string; seconds: number }[] {
    const { zero, external } = this.input;
    const sums = this.sumsOf(section);
    sums.calls += 1;
    const beside: { readonly section: string; seconds: number }[] = [];
    for (const { kind, stream } of external.get(section) ?? []) {
      const seconds = zero.seconds(kind, turn);
      sums.busySeconds[stream] = (sums.busySeconds[stream] ?? 0) + seconds;
      if (zero.overlaps(kind) && turn.module !== 'end') beside.push({ section, seconds });
      else if (seconds > 0) {
        this.join();
        this.delay(section, seconds);
      }
    }
    return beside;
  }

  /** All that is queued later comes later by so much; the host goes on. */
  private delay(section: string, seconds: number): void {
    this.sumsOf(section).advanceSeconds += seconds;
    this.now += seconds;
    for (let stream = 0; stream < this.free.length; stream++) {
      this.free[stream] = (this.free[stream] ?? 0) + seconds;
      this.busyUntil[stream] = (this.busyUntil[stream] ?? 0) + seconds;
    }
  }

  private join(): void {
    this.free.fill(this.now);
    this.busyUntil.fill(this.now);
  }

  private runPlanCall(call: Call): void {
    const section = this.input.sections.get(call.section);
    if (section === undefined) throw new RangeError(`the program calls ${call.section}, which is not a section`);
    const sums = this.sumsOf(call.section);
    sums.calls += 1;
    if (this.input.device.serial) this.runSerial(section, sums);
    else this.runOnStreams(section, call.waits, sums);
  }

  private runSerial(section: SectionArrays, sums: Sums): void {
    const seconds = this.secondsOf(section);
    for (let i = 0; i < section.numOps; i++) {
      const stream = section.streams[i] ?? 0;
      const duration = seconds[i] ?? 0;
      sums.busySeconds[stream] = (sums.busySeconds[stream] ?? 0) + duration;
      sums.advanceSeconds += duration;
      this.now += duration;
    }
  }

  private runOnStreams(section: SectionArrays, masks: readonly number[], sums: Sums): void {
    this.meetMasks(masks);
    const [first] = section.used;
    if (first === undefined) return;
    const origin = this.free[first] ?? 0;
    const entry = this.entryFrom(origin);
    const run = this.memo.find(section, entry, () => this.simulate(section, entry));
    for (const stream of section.used) {
      const end = origin + (run.free[stream] ?? 0);
      this.free[stream] = end;
      this.busyUntil[stream] = end;
      sums.busySeconds[stream] = (sums.busySeconds[stream] ?? 0) + (run.busySeconds[stream] ?? 0);
    }
    this.host += section.issueSeconds.at(-1) ?? 0;
    const now = Math.max(this.now, origin + run.lastEnd);
    sums.advanceSeconds += now - this.now;
    this.now = now;
  }

  /** A stream may go on when all that was queued before on the streams of its mask has ended. */
  private meetMasks(masks: readonly number[]): void {
    for (let stream = 0; stream < this.free.length; stream++) {
      const mask = masks[stream] ?? 0;
      let free = this.free[stream] ?? 0;
      for (let other = 0; mask >> other > 0; other++) {
        if ((mask >> other) & 1) free = Math.max(free, this.busyUntil[other] ?? 0);
      }
      this.free[stream] = free;
    }
  }

  private entryFrom(origin: number): CallEntry {
    return {
      free: this.free.map((time) => time - origin),
      busyUntil: this.busyUntil.map((time) => time - origin),
      host: this.input.free?.host === true ? Number.NEGATIVE_INFINITY : this.host - origin,
    };
  }

  /** Copies that take no time slow none of the other direction. */
  private simulate(section: SectionArrays, entry: CallEntry): CallRun {
    const duplex = this.input.free?.copies === true ? undefined : this.input.device.duplex;
    const seconds = this.secondsOf(section);
    return duplex === undefined ? runCall(section, seconds, entry, this.times) : runDuplexCall(section, seconds, entry, this.times, duplex);
  }

  private secondsOf(section: SectionArrays): Float64Array {
    return this.input.free?.copies === true ? section.secondsWithFreeCopies : section.seconds;
  }

  private sumsOf(section: string): Sums {
    const sums = this.sums.get(section) ?? { calls: 0, advanceSeconds: 0, busySeconds: new Float64Array(this.input.numStreams) };
    this.sums.set(section, sums);
    return sums;
  }
}
