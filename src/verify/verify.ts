/**
 * Legality of a plan's schedule at its addresses, found by running the step program symbolically, independently of the passes that made
 * it. First what can be said of pools, ops and calls on their own; then, where that is in order, what happens to every byte: races and
 * values inside a call, once for all calls of a section that alias alike, and across the calls of a micro-step.
 */
import { evaluationOf, trainingOf } from '../schedule/evaluation.js';
import type { Section } from '../schedule/op.js';
import { type CallFrame, checkExits, frameOf } from './callFrame.js';
import { type PlacedCall, checkCalls, placeCalls } from './calls.js';
import { aliasing } from './classes.js';
import { type Context, type VerifyInput, contextOf } from './context.js';
import { checkCoverage, sequenceEnd } from './coverage.js';
import { type FlatSection, flatten } from './flat.js';
import { checkFrame } from './frame.js';
import { checkGradients } from './gradients.js';
import { checkLeftOut } from './leftOut.js';
import { checkProgram } from './program.js';
import type { RunCall } from './programCells.js';
import { type Replayed, replayCall } from './replay.js';
import { columnsOf, replayedOf, type Replays } from './replayColumns.js';
import { type CallSummary, summarize } from './runs.js';
import { checkShapes } from './shapes.js';
import { checkTurns } from './turns.js';
import { type Violation, Violations } from './violation.js';

export type { VerifyInput, WeightRegions } from './context.js';
export type { CallName, Violation } from './violation.js';

/** As many as a reader can make use of. */
const MAX_VIOLATIONS = 50;

/** The first violations found of each program, in the order of the checks; empty when the schedule is legal. */
export function verifySchedule(input: VerifyInput): readonly Violation[] {
  return programsOf(input).flatMap(verifyProgram);
}

/** Each program with its sections. Arenas hold nothing from one to the other: all streams are joined between. */
function programsOf(input: VerifyInput): readonly VerifyInput[] {
  const evaluation = evaluationOf(input);
  return [trainingOf(input), ...(evaluation === undefined ? [] : [{ ...evaluation, evaluates: true }])];
}

function verifyProgram(input: VerifyInput): readonly Violation[] {
  const check = new Check(input);
  check.begin();
  if (!check.isWhole) return check.found;
  return check.finish(check.frames.map(replayHere));
}

/** The same, with the calls of long sections replayed elsewhere, side by side. Rejects with the signal's reason once that is given. */
export async function verifyScheduleOn(replays: Replays, input: VerifyInput, signal?: AbortSignal): Promise<readonly Violation[]> {
  const found = await Promise.all(programsOf(input).map((one) => verifyProgramOn(replays, one, signal)));
  return found.flat();
}

async function verifyProgramOn(replays: Replays, input: VerifyInput, signal?: AbortSignal): Promise<readonly Violation[]> {
  const check = new Check(input);
  check.begin();
  if (!check.isWhole) return check.found;
  const before = check.found.length;
  const elsewhere = check.frames.map((frame) =>
    frame.flat.numOps < replays.leastOps ? undefined : replays.start(columnsOf(frame), signal),
  );
  const here = check.frames.map((frame, i) => (elsewhere[i] === undefined ? replayHere(frame) : undefined));
  const found = await Promise.all(elsewhere.map((one) => one ?? Promise.resolve(undefined)));
  const replayed = found.map((columns, i) => (columns === undefined ? here[i] : columns.problemOp < 0 ? replayedOf(columns) : undefined));
  const whole = replayed.filter((one) => one !== undefined);
  // Something is wrong: what and where is said by the replay that knows the words, in the order of the calls.
  if (whole.length < replayed.length || check.found.length > before) return verifyProgram(input);
  for (const [i, frame] of check.frames.entries()) if (elsewhere[i] !== undefined) checkExits(frame, (whole[i] as Replayed).owner);
  return check.finish(whole);
}

function replayHere(frame: CallFrame): Replayed {
  const replayed = replayCall(frame);
  checkExits(frame, replayed.owner);
  return replayed;
}

/** The checks before and after calls are replayed. */
class Check {
  private readonly context: Context;
  private calls: readonly ClassedCall[] = [];
  /** One call of each class. */
  frames: readonly CallFrame[] = [];
  /** Whether the calls are in order, so that they can be replayed. */
  isWhole = false;

  constructor(input: VerifyInput) {
    this.context = contextOf(input, new Violations(MAX_VIOLATIONS));
  }

  get found(): readonly Violation[] {
    return this.context.violations.found;
  }

  begin(): void {
    const { context } = this;
    checkFrame(context);
    if (this.found.length > 0) return;
    const flats = new Map(context.input.sections.map((section: Section) => [section.name, flatten(section, context)] as const));
    for (const flat of flats.values()) checkShapes(flat, context);
    if (this.found.length > 0) return;
    if (context.input.run?.packing === true) for (const flat of flats.values()) checkLeftOut(flat, context);
    if (this.found.length > 0) return;
    const calls = placeCalls(flats, context);
    checkCalls(calls, context);
    if (this.found.length > 0) return;
    checkTurns(calls, context);
    checkSequence(calls, context);
    const classes = classify(calls, context);
    this.calls = classes.calls;
    this.frames = classes.frames;
    this.isWhole = true;
  }

  /** `replayed`: the frames. */
  finish(replayed: readonly Replayed[]): readonly Violation[] {
    const { context } = this;
    const summaries = this.frames.map((frame, i) => summarize(frame, replayed[i] as Replayed));
    let firstOp = 0;
    const own = this.calls.map(({ placed, frame }): RunCall => {
      const started = firstOp;
      firstOp += placed.flat.numOps;
      return { ...placed, summary: summaries[frame] as CallSummary, firstOp: started };
    });
    checkGradients(own, context);
    checkProgram(own, context);
    return this.found;
  }
}

/** Sections see every token, under the window of their layers. */
function checkSequence(calls: readonly PlacedCall[], context: Context): void {
  const { windows } = context.input;
  const end = sequenceEnd(context);
  const seen = new Map<FlatSection, number | null | undefined>();
  for (const { flat, call, name } of calls) {
    const window = call.layer === undefined ? undefined : windows?.[call.layer];
    if (!seen.has(flat)) {
      seen.set(flat, window);
      checkCoverage(flat, context, end, window);
    } else if (seen.get(flat) !== window && flat.firstOfKind.has('attn')) {
      const problem = `is called for layers with the windows ${seen.get(flat) ?? 'none'} and ${window ?? 'none'}`;
      context.violations.add({ section: flat.section.name, call: name, text: flat.section.name, problem });
    }
  }
}

/** A call that the plan makes itself, with the number of the frame that speaks for it. */
interface ClassedCall {
  readonly placed: PlacedCall;
  readonly frame: number;
}

function classify(
  calls: readonly PlacedCall[],
  context: Context,
): { readonly calls: readonly ClassedCall[]; readonly frames: readonly CallFrame[] } {
  const keys = new Map<FlatSection, (args: readonly number[]) => string>();
  const numbers = new Map<string, number>();
  const frames: CallFrame[] = [];
  const classed = calls.flatMap((placed): readonly ClassedCall[] => {
    const { call, flat, name } = placed;
    if (call.owner !== 'plan') return [];
    const keyOf = keys.get(flat) ?? aliasing(flat, context);
    keys.set(flat, keyOf);
    const key = `${flat.section.name}: ${keyOf(call.args)}`;
    const frame = numbers.get(key) ?? frames.push(frameOf(flat, call.args, name, context)) - 1;
    numbers.set(key, frame);
    return [{ placed, frame }];
  });
  return { calls: classed, frames };
}
