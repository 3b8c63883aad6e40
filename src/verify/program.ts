/**
 * Two micro-steps, call by call (streams are not joined between them): every entry value is in place, whole and not overwritten, and
 * every two calls that touch the same bytes on different streams are ordered by entry masks, waits, and what follows from them.
 */
import type { Role } from '../schedule/op.js';
import type { Call } from '../schedule/program.js';
import { edgeAt, slotAddress } from './cells.js';
import type { Context } from './context.js';
import { Knowledge } from './knowledge.js';
import { instanceName, instanceNumbers, type ProgramCells, programCells, type RunCall, rowsText } from './programCells.js';
import { atOp, roleText } from './text.js';
import { callText } from './violation.js';
import type { Slot } from './viewTable.js';

/** A value that was written through no parameter: a table, a sum. */
const NO_ROLE = 0;
/** Written through a parameter that promises nothing when its call ends. */
const UNNAMED = 1;

export function checkProgram(calls: readonly RunCall[], context: Context): void {
  const first = calls.filter(({ turn }) => turn.module !== 'end');
  const numOps = calls.reduce((sum, { flat }) => sum + flat.numOps, 0);
  const second = calls.map((call) => ({ ...call, firstOp: call.firstOp + numOps }));
  const replay = new ProgramReplay([...first, ...second], context);
  for (let number = 0; number < first.length && !context.violations.isFull; number++) replay.run(number);
  if (context.violations.found.length > 0) return;
  replay.forgetValues();
  for (let number = first.length; number < first.length + second.length && !context.violations.isFull; number++) replay.run(number);
}

class ProgramReplay {
  private readonly calls: readonly RunCall[];
  private readonly context: Context;
  private readonly cells: ProgramCells;
  private readonly knowledge: Knowledge;
  /** Stream that is joined at the end of every turn; -1 for none. */
  private readonly joined: number;
  private readonly instanceOf: ReturnType<typeof instanceNumbers>;
  private readonly edges = new Map<Call, Int32Array>();
  private readonly values = new Map<string, number>();
  private readonly valueNames: string[] = ['a value without a role', 'a value that its call does not name'];
  /** What was reported of the call at hand. */
  private reported = new Set<string>();

  constructor(calls: readonly RunCall[], context: Context) {
    this.calls = calls;
    this.context = context;
    this.cells = programCells(calls, context);
    this.knowledge = new Knowledge(context.numStreams);
    this.joined = context.input.joinsCompute === true ? (context.streamNumbers.get('compute') ?? -1) : -1;
    this.instanceOf = instanceNumbers(context);
  }

  /** What a micro-step leaves behind is dead; only who is still at work on which bytes matters to the next. */
  forgetValues(): void {
    this.cells.instance.fill(-1);
    this.cells.value.fill(-1);
  }

  run(number: number): void {
    const now = this.calls[number] as RunCall;
    const { runs, extraEntries } = now.summary;
    this.reported = new Set();
    if (now.turn.module === 'end') this.knowledge.joinAll(now.firstOp);
    else if (this.joined >= 0 && this.calls[number - 1]?.turn !== now.turn) this.knowledge.joinStream(this.joined, now.firstOp);
    this.knowledge.enter(now.call.waits, now.firstOp, now.summary);
    const { slots } = now.flat.views;
    const addresses = slots.map((slot: Slot) => slotAddress(slot, now.call.args, this.context));
    const edges = this.edgesOf(now, addresses);
    for (const { slot, start, end } of extraEntries) this.checkEntry(now, slot, start, end, addresses[slot] as number);
    for (let run = 0; run < runs.count; run++) {
      const slot = runs.slot[run] as number;
      const address = addresses[slot] as number;
      const low = edges[2 * run] as number;
      const high = edges[2 * run + 1] as number;
      const reader = runs.entryReader[run] as number;
      if (reader >= 0) {
        // The same bytes, from the start of the reader's own instance.
        const shift = address - (addresses[reader] as number);
        this.checkEntry(now, reader, (runs.start[run] as number) + shift, (runs.end[run] as number) + shift, addresses[reader] as number);
      }
      this.checkOrder(now, run, low, high);
      this.remember(number, run, low, high);
    }
    this.knowledge.leave(now.firstOp, now.summary);
  }

  /** By run its first cell and one past its last: the same in both micro-steps. */
  private edgesOf({ call, summary: { runs } }: RunCall, addresses: readonly number[]): Int32Array {
    const known = this.edges.get(call);
    if (known !== undefined) return known;
    const found = new Int32Array(2 * runs.count);
    for (let run = 0; run < runs.count; run++) {
      const address = addresses[runs.slot[run] as number] as number;
      found[2 * run] = edgeAt(this.cells.edges, address + (runs.start[run] as number));
      found[2 * run + 1] = edgeAt(this.cells.edges, address + (runs.end[run] as number));
    }
    this.edges.set(call, found);
    return found;
  }

  /** Bytes that a slot reads as the call finds them hold the value of its role. */
  private checkEntry(now: RunCall, number: number, start: number, end: number, address: number): void {
    const slot = now.flat.views.slots[number] as Slot;
    const { instance, value, writer, edges } = this.cells;
    const own = this.instanceOf(slot, now.call.args);
    const role = this.roleOf(now, slot, 'entry');
    const expected = role === undefined ? undefined : this.valueOf(role, slot);
    for (let cell = edgeAt(edges, address + start); cell < edges.length && (edges[cell] as number) < address + end; cell++) {
      const isOwn = instance[cell] === own;
      if (isOwn && (expected === undefined || value[cell] === expected)) continue;
      const by = this.calls[writer[cell] as number];
      const found =
        instance[cell] === -1
          ? 'which nothing has written in this micro-step'
          : isOwn
            ? `which is ${this.valueNames[value[cell] as number]}`
            : `whose bytes were overwritten through ${instanceName(instance[cell] as number, this.context)}`;
      const wanted = expected === undefined ? '' : ` as ${this.valueNames[expected]}`;
      const view = rowsText(
        slot,
        now.call.args,
        (edges[cell] as number) - address,
        Math.min((edges[cell + 1] as number) - address, end),
        this.context,
      );
      const where = by === undefined ? '' : ` (by ${callText(by.name)}, ${by.call.section})`;
      this.report(now, slot.op, `entry ${number}`, `reads ${view}${wanted}, ${found}${where}`);
      return;
    }
  }

  /** No stream of an earlier call may still be at work on bytes that this call's streams touch, unless both only read. */
  private checkOrder(now: RunCall, run: number, low: number, high: number): void {
    const { numStreams: n } = this.context;
    const { firstRead, firstChange } = now.summary.runs;
    for (let s = 0; s < n; s++) {
      const reading = firstRead[run * n + s] as number;
      const changing = firstChange[run * n + s] as number;
      if (reading > 0) this.checkPhase(now, run, s, reading, false, low, high);
      if (changing > 0) this.checkPhase(now, run, s, changing, true, low, high);
    }
  }

  private checkPhase(now: RunCall, run: number, s: number, phase: number, changes: boolean, low: number, high: number): void {
    const { numStreams: n } = this.context;
    const { lastRead, lastChange } = this.cells;
    const known = this.knowledge.inPhase(s, phase);
    for (let cell = low; cell < high; cell++) {
      for (let t = 0; t < n; t++) {
        if (t === s) continue;
        const at = cell * n + t;
        const last = changes ? Math.max(lastChange[at] as number, lastRead[at] as number) : (lastChange[at] as number);
        if (last > (known[t] as number)) this.reportRace(now, run, s, t, last, cell);
      }
    }
  }

  private remember(number: number, run: number, low: number, high: number): void {
    const now = this.calls[number] as RunCall;
    const { numStreams: n } = this.context;
    const { runs } = now.summary;
    const { instance, value, writer, lastRead, lastChange } = this.cells;
    const owner = runs.owner[run] as number;
    const slot = now.flat.views.slots[owner];
    const own = slot === undefined ? -1 : this.instanceOf(slot, now.call.args);
    const held = slot === undefined ? -1 : this.valueLeft(now, slot);
    for (let cell = low; cell < high; cell++) {
      for (let t = 0; t < n; t++) {
        const read = runs.lastRead[run * n + t] as number;
        const changed = runs.lastChange[run * n + t] as number;
        if (read >= 0) lastRead[cell * n + t] = now.firstOp + read;
        if (changed >= 0) lastChange[cell * n + t] = now.firstOp + changed;
      }
      if (slot === undefined) continue;
      instance[cell] = own;
      value[cell] = held;
      writer[cell] = number;
    }
  }

  private valueLeft(now: RunCall, slot: Slot): number {
    if (slot.param < 0) return NO_ROLE;
    const role = this.roleOf(now, slot, 'exit');
    return role === undefined ? UNNAMED : this.valueOf(role, slot);
  }

  private roleOf({ flat, call }: RunCall, { param }: Slot, when: 'entry' | 'exit'): Role | undefined {
    const role = flat.section.params[param]?.[when];
    return role === undefined ? undefined : { value: role.value, layer: role.layer + (call.layer ?? 0) };
  }

  /** A value that takes several instances, as in files, is in pieces: those of equal index are the same piece. */
  private valueOf(role: Role, { index }: Slot): number {
    const name = index === 0 ? roleText(role) : `${roleText(role)} piece ${index}`;
    const known = this.values.get(name);
    if (known !== undefined) return known;
    const number = this.valueNames.push(name) - 1;
    this.values.set(name, number);
    return number;
  }

  private reportRace(now: RunCall, run: number, s: number, t: number, op: number, cell: number): void {
    const other = this.calls.findLast(({ firstOp }) => firstOp <= op);
    const { streams } = this.context.input;
    const key = `race ${s} ${t} ${other?.firstOp}`;
    if (other === undefined || this.reported.has(key)) return;
    const { runs } = now.summary;
    const slot = now.flat.views.slots[runs.slot[run] as number] as Slot;
    const view = rowsText(slot, now.call.args, runs.start[run] as number, runs.end[run] as number, this.context);
    const both = `${streams[s]} touches ${view}, ${streams[t]} there ${this.viewAt(other, cell)}`;
    const problem = `races with ${callText(other.name)} (${other.call.section}): ${both}, and nothing orders them`;
    this.report(now, slot.op, key, problem);
  }

  /** What a call touched in a cell. */
  private viewAt({ flat, call, summary: { runs } }: RunCall, cell: number): string {
    const address = this.cells.edges[cell] as number;
    for (let run = 0; run < runs.count; run++) {
      const slot = flat.views.slots[runs.slot[run] as number] as Slot;
      const offset = address - slotAddress(slot, call.args, this.context);
      const [start, end] = [runs.start[run] as number, runs.end[run] as number];
      if (start <= offset && offset < end) return rowsText(slot, call.args, start, end, this.context);
    }
    return 'the same bytes';
  }

  private report(now: RunCall, op: number, key: string, problem: string): void {
    if (this.reported.has(key)) return;
    this.reported.add(key);
    this.context.violations.add(atOp(now.flat, op, problem, this.context, now.name));
  }
}
