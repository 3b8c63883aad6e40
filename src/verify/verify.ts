/**
 * Legality of a plan's schedule at its addresses, found by running the step program symbolically, independently of the passes that made
 * it. First what can be said of pools, ops and calls on their own; then, where that is in order, what happens to every byte: races and
 * values inside a call, once for all calls of a section that alias alike, and across the calls of a micro-step.
 */
import type { Section } from '../schedule/op.js';
import { type PlacedCall, checkCalls, placeCalls } from './calls.js';
import { aliasing } from './classes.js';
import { type Context, type VerifyInput, contextOf } from './context.js';
import { checkCoverage, sequenceEnd } from './coverage.js';
import { type FlatSection, flatten } from './flat.js';
import { checkFrame } from './frame.js';
import { checkGradients } from './gradients.js';
import { checkProgram } from './program.js';
import type { RunCall } from './programCells.js';
import { CallReplay } from './replay.js';
import { type CallSummary, summarize } from './runs.js';
import { checkShapes } from './shapes.js';
import { checkTurns } from './turns.js';
import { type Violation, Violations } from './violation.js';

export type { VerifyInput, WeightRegions } from './context.js';
export type { CallName, Violation } from './violation.js';

/** As many as a reader can make use of. */
const MAX_VIOLATIONS = 50;

/** The first violations found, in the order of the checks; empty when the schedule is legal. */
export function verifySchedule(input: VerifyInput): readonly Violation[] {
  const violations = new Violations(MAX_VIOLATIONS);
  const context = contextOf(input, violations);
  checkFrame(context);
  if (violations.found.length > 0) return violations.found;
  const flats = new Map(input.sections.map((section: Section) => [section.name, flatten(section, context)] as const));
  for (const flat of flats.values()) checkShapes(flat, context);
  if (violations.found.length > 0) return violations.found;
  const calls = placeCalls(flats, context);
  checkCalls(calls, context);
  if (violations.found.length > 0) return violations.found;
  checkTurns(calls, context);
  checkSequence(calls, context);
  const own = replayClasses(calls, context);
  checkGradients(own, context);
  checkProgram(own, context);
  return violations.found;
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

/** The calls that the plan makes itself, each with what it does to memory. */
function replayClasses(calls: readonly PlacedCall[], context: Context): readonly RunCall[] {
  const keys = new Map<FlatSection, (args: readonly number[]) => string>();
  const summaries = new Map<string, CallSummary>();
  let firstOp = 0;
  return calls.flatMap((placed): readonly RunCall[] => {
    const { call, flat, name } = placed;
    if (call.owner !== 'plan') return [];
    const keyOf = keys.get(flat) ?? aliasing(flat, context);
    keys.set(flat, keyOf);
    const key = `${flat.section.name}: ${keyOf(call.args)}`;
    const summary = summaries.get(key) ?? summarize(new CallReplay(flat, call.args, name, context).run(), call.args, context);
    summaries.set(key, summary);
    const started = firstOp;
    firstOp += flat.numOps;
    return [{ ...placed, summary, firstOp: started }];
  });
}
