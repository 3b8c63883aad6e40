/** The calls of the step program: sections, arguments, layers and entry masks that are there and in range. */
import { type Call, type Turn, turnName } from '../schedule/program.js';
import { isCount } from './checks.js';
import { type Context, bufferAt, rowOf } from './context.js';
import type { FlatSection } from './flat.js';
import type { CallName } from './violation.js';

/** A call with its section and its place in the program. */
export interface PlacedCall {
  readonly call: Call;
  readonly flat: FlatSection;
  readonly turn: Turn;
  readonly name: CallName;
}

/** Calls in execution order; those of unknown sections are left out, and reported. */
export function placeCalls(flats: ReadonlyMap<string, FlatSection>, { input, violations }: Context): readonly PlacedCall[] {
  const placed: PlacedCall[] = [];
  for (const turn of input.programs.train.turns) {
    for (const [number, call] of turn.calls.entries()) {
      const flat = flats.get(call.section);
      const name = { turn: turnName(turn), number };
      if (flat !== undefined) placed.push({ call, flat, turn, name });
      else violations.add({ section: call.section, call: name, text: call.section, problem: 'is not a section of the plan' });
    }
  }
  return placed;
}

export function checkCalls(calls: readonly PlacedCall[], context: Context): void {
  for (const placed of calls) {
    const report = (problem: string): void =>
      context.violations.add({ section: placed.call.section, call: placed.name, text: callToText(placed), problem });
    checkArgs(placed, context, report);
    checkOwner(placed, context, report);
    checkMasks(placed, context, report);
  }
  checkFirstMask(calls, context);
}

function callToText({ call, flat }: PlacedCall): string {
  const args = call.args.map((arg, i) => `${flat.section.params[i]?.name ?? i}=${arg}`);
  return `${call.section}(${args.join(', ')})${call.layer === undefined ? '' : ` layer ${call.layer}`}`;
}

type Report = (problem: string) => void;

function checkArgs({ call, flat }: PlacedCall, context: Context, report: Report): void {
  const { params } = flat.section;
  if (call.args.length !== params.length) {
    report(`has ${call.args.length} arguments, its section ${params.length} parameters`);
    return;
  }
  for (const { buffer, param, index } of flat.views.slots) {
    if (param < 0) continue;
    const { name, instances } = bufferAt(context, buffer);
    const instance = (call.args[param] ?? Number.NaN) + index;
    if (!isCount(instance) || instance >= instances)
      report(`binds ${params[param]?.name}${index === 0 ? '' : `+${index}`} to instance ${instance} of the ${instances} of ${name}`);
  }
}

function checkOwner({ call, flat }: PlacedCall, { input }: Context, report: Report): void {
  if (call.layer !== undefined && !(isCount(call.layer) && call.layer < input.numLayers))
    report(`is for layer ${call.layer} of ${input.numLayers}`);
  if (call.owner !== 'plan' && call.owner !== 'zero') report(`is owned by ${String(call.owner)}`);
  const own = call.owner === 'zero' ? flat.section.ops.find(({ kind }) => rowOf(kind)?.external !== true) : undefined;
  if (own !== undefined) report(`is left to ZeRO, which knows nothing of op ${own.id} ${own.kind}`);
}

/** A number a stream, without a bit for the stream itself or for one that is not there. Nothing waits for what ZeRO runs. */
function checkMasks({ call }: PlacedCall, { input: { streams } }: Context, report: Report): void {
  if (call.owner === 'zero' && call.waits.length === 0) return;
  if (call.waits.length !== streams.length) report(`has ${call.waits.length} entry masks, and there are ${streams.length} streams`);
  for (const [stream, mask] of call.waits.entries()) {
    if (!isCount(mask) || mask >= 2 ** streams.length)
      report(`${streams[stream] ?? `stream ${stream}`} has the entry mask ${mask}, beyond the ${streams.length} streams`);
    else if ((mask & (1 << stream)) !== 0) report(`${streams[stream]} waits for itself`);
  }
}

/** What the micro-step before left in the queues is not known: its first call waits for all of it. */
function checkFirstMask(calls: readonly PlacedCall[], { input: { streams }, violations }: Context): void {
  const first = calls.find(({ call }) => call.owner === 'plan');
  if (first === undefined) return;
  for (const [stream, name] of streams.entries()) {
    const missing = streams.filter((_, other) => other !== stream && ((first.call.waits[stream] ?? 0) & (1 << other)) === 0);
    if (missing.length === 0) continue;
    const problem = `is the first of the micro-step, and ${name} does not wait for ${missing.join(', ')}`;
    violations.add({ section: first.call.section, call: first.name, text: callToText(first), problem });
  }
}
