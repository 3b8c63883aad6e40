/** Ways to break a step program: calls that are missing, in another order, bound to another instance or layer, or not ordered. */
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { type Call, type Turn, turnName } from '../../src/schedule/program.js';
import { type Candidate, type Operator, seal } from './candidate.js';

export function callMutants(plan: ExecutionPlan): readonly Candidate[] {
  const { turns } = plan.programs.train;
  return turns.flatMap((turn, at) => turn.calls.flatMap((call, i) => mutantsOf(plan, turn, at, call, i)));
}

function mutantsOf(plan: ExecutionPlan, turn: Turn, at: number, call: Call, i: number): readonly Candidate[] {
  if (call.owner !== 'plan') return [];
  const mutant = (operator: Operator, how: string, calls: () => readonly Call[]): Candidate => ({
    operator,
    what: `${turnName(turn)}: ${call.section}(${call.args.join(', ')}) ${how}`,
    ops: [],
    build: () => withCalls(plan, at, calls()),
  });
  const changed = (change: Partial<Call>) => (): readonly Call[] => turn.calls.map((one) => (one === call ? { ...call, ...change } : one));
  const next = turn.calls[i + 1];
  return [
    mutant('dropCall', 'dropped', () => turn.calls.filter((one) => one !== call)),
    ...(next?.owner === 'plan'
      ? [mutant('swapCalls', `after ${next.section}`, () => turn.calls.map((one) => (one === call ? next : one === next ? call : one)))]
      : []),
    ...call.args.map((arg, param) =>
      mutant(
        'changeArg',
        `with argument ${param} ${arg === 0 ? 1 : arg - 1}`,
        changed({ args: call.args.with(param, arg === 0 ? 1 : arg - 1) }),
      ),
    ),
    ...(call.layer === undefined || isMove(call)
      ? []
      : [
          mutant(
            'changeLayer',
            `with the weights of layer ${otherLayer(call.layer, plan)}`,
            changed({ layer: otherLayer(call.layer, plan) }),
          ),
        ]),
    ...bitsOf(plan, call).map(([stream, other]) =>
      mutant(
        'dropEntryWait',
        `whose ${plan.streams[stream]} does not wait for ${plan.streams[other]}`,
        changed({ waits: call.waits.with(stream, (call.waits[stream] ?? 0) - 2 ** other) }),
      ),
    ),
  ];
}

/** It uses no weights. */
function isMove({ section }: Call): boolean {
  return section.startsWith('relocate') || ['stash', 'gather', 'release'].includes(section);
}

function otherLayer(layer: number, { model }: ExecutionPlan): number {
  return layer + 1 < model.numLayers ? layer + 1 : layer - 1;
}

/** Bits of the mask that order something of this call; the first call of a micro-step waits for all that came before it. */
function bitsOf({ streams, programs }: ExecutionPlan, call: Call): readonly (readonly [number, number])[] {
  if (programs.train.turns[0]?.calls.includes(call) === true) return [];
  const numbers = streams.map((_, stream) => stream);
  return numbers.flatMap((s) => numbers.filter((t) => Math.floor((call.waits[s] ?? 0) / 2 ** t) % 2 === 1).map((t) => [s, t] as const));
}

function withCalls(plan: ExecutionPlan, at: number, calls: readonly Call[]): ExecutionPlan {
  const turns = plan.programs.train.turns.map((turn, i) => (i === at ? { ...turn, calls } : turn));
  return seal(plan, { programs: { train: { turns } } });
}
