/** What the verifier says of calls, turns, and of what happens to bytes. */
import { describe } from 'vitest';
import { type Call, turnName } from '../../src/schedule/program.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { withAccess, withBuffer, withCalls, withLine, withOp, withoutOp, withTurns } from './bend.js';
import { findsAll, type Rule } from './rules.js';
import { withMasks } from './small.js';

const CALLS: readonly Rule[] = [
  [
    'an unknown section',
    (plan) => withCalls(plan, 'lossForward', (call) => ({ ...call, section: 'lossBoth' })),
    /is not a section of the plan/,
    'lossBoth',
  ],
  [
    'an argument too few',
    (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, args: [0, 1] })),
    /has 2 arguments, its section 3 parameters/,
  ],
  [
    'an instance out of bounds',
    (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, args: [0, 1, 5] })),
    /binds saved\+1 to instance 6 of the 6 of o\.saved/,
  ],
  ['an owner nobody knows', (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, owner: 'me' as 'plan' })), /is owned by me/],
  [
    'ops of ours left to ZeRO',
    (plan) => withCalls(plan, 'layerRebuild', (call) => ({ ...call, owner: 'zero' })),
    /is left to ZeRO, which knows nothing of op 0 copy/,
  ],
  ['a layer that is not there', (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, layer: 3 })), /is for layer 3 of 3/],
  [
    'a mask too few',
    (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, waits: [0, 0] })),
    /has 2 entry masks, and there are 6 streams/,
  ],
  [
    'a mask beyond the streams',
    (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, waits: call.waits.with(1, 64) })),
    /comm has the entry mask 64, beyond the 6 streams/,
  ],
  [
    'a stream that waits for itself',
    (plan) => withCalls(plan, 'layerForward', (call) => ({ ...call, waits: call.waits.with(1, 2) })),
    /comm waits for itself/,
  ],
  [
    'a first call that waits for little',
    (plan) => withCalls(plan, 'embedForward', (call) => ({ ...call, waits: call.waits.with(3, 1) })),
    /is the first of the micro-step, and d2h does not wait for comm, h2d, read, write/,
  ],
];

const TURNS: readonly Rule[] = [
  [
    'turns in another order',
    (plan) => withTurns(plan, (turns) => turns.map((turn, i) => (i === 1 ? turns[2] : turn))),
    /turn 1 is layer 1 forward, expected layer 0 forward/,
    'program',
  ],
  ['a turn too many', (plan) => withTurns(plan, (turns) => [...turns, ...turns.slice(-1)]), /turn 11 is end, expected none/, 'program'],
  [
    'a turn that hands nothing over',
    (plan) => withoutOp(plan, 'lossBackward', 'emitGrads'),
    /hands over gradients 0 times, expected 1/,
    'program',
  ],
  [
    'gradients handed over twice',
    (plan) => withLine(plan, 'lossBackward', 'emitGrads', (line) => `${line}\n${line}`),
    /hands over gradients 2 times, expected 1/,
    'program',
  ],
  [
    'part of the gradients',
    (plan) => withAccess(plan, 'lossBackward', 'emitGrads', 'reads', 0, { rows: { start: 0, end: 2 } }),
    /hands over elements 0\.\.2, and the head's weights are 0\.\.3/,
  ],
  [
    'gradients of another layer',
    (plan) => withCalls(plan, 'layerBackward', (call) => ({ ...call, layer: 0 })),
    /hands over gradients of layer 0 in the turn of layer 2/,
  ],
  ['weights of no layer', (plan) => withCalls(plan, 'layerForward', withoutLayer), /uses weights of a layer, and its call names none/],
  [
    'a loss in the wrong turn',
    (plan) => moveCall(plan, 'lossForward', 'head backward'),
    /runs in the turn head backward, its kind in head forward alone/,
  ],
  [
    'a turn without its gradients',
    (plan) => withTurns(plan, (turns) => turns.map((turn) => (turnName(turn) === 'layer 0 backward' ? { ...turn, calls: [] } : turn))),
    /has postBwd in 0 calls, expected one/,
    'program',
  ],
  [
    'weights that are not gathered',
    (plan) => withCalls(plan, 'gather', (call) => ({ ...call, layer: 1 })),
    /uses weights of layer 0 in the turn layer 1 backward, which has not gathered them/,
    'layerRebuild',
  ],
  [
    'weights that are not released',
    (plan) => withCalls(plan, 'release', (call) => ({ ...call, owner: 'zero' })),
    /gathers layer 0, which the turn never releases/,
    'gather',
  ],
  [
    'weights that are released before use',
    (plan) => withTurns(plan, (turns) => turns.map((turn) => ({ ...turn, calls: swapped(turn.calls, 'layerRebuild', 'release') }))),
    /uses weights of layer 0/,
    'layerRebuild',
  ],
];

const VALUES: readonly Rule[] = [
  [
    'a race in a call',
    (plan) => withOp(plan, 'layerForward', 'toHeads', (op) => ({ ...op, waits: [] })),
    /^races with op 1 pre on compute: qLocal\[0:4\) shares bytes with its qLocal\[0:4\), and no wait orders them/,
  ],
  [
    'a read of what nothing wrote',
    (plan) => withoutOp(plan, 'layerForward', 'pre'),
    /reads qLocal\[0:4\), which nothing has written in this call/,
  ],
  [
    'a region that was not zeroed',
    (plan) => withoutOp(plan, 'layerBackward', 'zero'),
    /reads wgradLayer\[0:5\), which nothing has written/,
  ],
  [
    'views of one op that overlap',
    (plan) => withBuffer(plan, 'vLocal', { offset: offsetOf(plan, 'kLocal') }),
    /shares bytes with another of its views/,
  ],
  [
    'a value overwritten through another buffer',
    (plan) => withMasks(withBuffer(plan, 'o.hbm', { offset: offsetOf(plan, 'x.hbm') })),
    /reads x\.hbm\[0:4\), whose bytes were overwritten through o\.hbm/,
  ],
  [
    'an output that is not whole',
    (plan) => withoutOp(plan, 'layerForward', 'copy', 7),
    /x@host#y must hold hidden 1 .* when the call ends, and row 4 is not written/,
  ],
  [
    'gradients that are zeroed again',
    (plan) => withLine(plan, 'layerBackward', 'preBwd', (line) => `${line}\nzero t[0:4) w wgradLayer[0:5)`, 1),
    /overwrites elements of wgradLayer to which op \d+ of layerBackward added gradients/,
  ],
  [
    'gradients that come too late',
    (plan) =>
      withLine(plan, 'embedBackward', 'embedBwd', (line) => `emitGrads t[0:4) r wgradEmbed[0:4)\n${line}`, 1, { drop: 'emitGrads' }),
    /adds gradients to elements 0\.\.4 of wgradEmbed, which no emitGrads hands over/,
  ],
];

const PROGRAM: readonly Rule[] = [
  [
    'the input of another layer',
    (plan) => withCalls(plan, 'layerBackward', (call) => ({ ...call, args: [2, 0, 4] })),
    /reads x@host#2\[0:4\) as hidden 2, which is hidden 3 \(by call 0 of layer 2 forward, layerForward\)/,
  ],
  [
    'an output nobody made',
    (plan) => withTurns(plan, (turns) => turns.map((turn) => (turnName(turn) === 'layer 1 forward' ? { ...turn, calls: [] } : turn))),
    /reads x@host#1\[0:8\) as hidden 2, which nothing has written in this micro-step/,
    'layerForward',
  ],
  [
    'a rebuilt input that is missing',
    (plan) =>
      withTurns(plan, (turns) => turns.map((turn) => ({ ...turn, calls: turn.calls.filter(({ section }) => section !== 'layerRebuild') }))),
    /reads x@host#2\[0:4\) as hidden 1, which is hidden 3/,
    'layerBackward',
  ],
  [
    'a piece of a value where another belongs',
    (plan) =>
      withTurns(plan, (turns) =>
        turns.map((turn) => ({
          ...turn,
          calls: turn.calls.map((call) => (call.section === 'layerForward' && call.layer === 2 ? { ...call, args: [1, 2, 3] } : call)),
        })),
      ),
    /reads o\.saved#4\[0:4\) as attentionOutput 2, which is attentionOutput 2 piece 1/,
    'layerBackward',
  ],
  [
    'a table that was overwritten',
    (plan) => withMasks(withBuffer(plan, 'labels', { offset: offsetOf(plan, 'q') })),
    /reads labels\[0:\d\), whose bytes were overwritten through q \(by call 0 of layer 2 forward, layerForward\)/,
    'lossForward',
  ],
  [
    'a sum that was not zeroed',
    (plan) => withoutOp(plan, 'embedForward', 'zero'),
    /reads lossSum\[0:1\), which nothing has written in this micro-step/,
    'lossForward',
  ],
  [
    'a race between calls',
    (plan) => withCalls(plan, 'lossForward', (call) => ({ ...call, waits: call.waits.map(() => 0) })),
    /^races with call 0 of layer 2 forward \(layerForward\): \w+ touches \S+, \w+ there \S+, and nothing orders them$/,
  ],
];

describe('of calls, verifySchedule', () => findsAll(CALLS));
describe('of turns, verifySchedule', () => findsAll(TURNS));
describe('of values inside a call, verifySchedule', () => findsAll(VALUES));
describe('of values and order across calls, verifySchedule', () => findsAll(PROGRAM));

function withoutLayer({ section, args, owner, waits }: Call): Call {
  return { section, args, owner, waits };
}

function moveCall(plan: VerifyInput, section: string, to: string): VerifyInput {
  const moved = plan.programs.train.turns.flatMap(({ calls }) => calls.filter((call) => call.section === section));
  return withTurns(plan, (turns) =>
    turns.map((turn) => {
      const rest = turn.calls.filter((call) => call.section !== section);
      return { ...turn, calls: turnName(turn) === to ? [...moved, ...rest] : rest };
    }),
  );
}

function swapped<Item extends { readonly section: string }>(calls: readonly Item[], one: string, other: string): readonly Item[] {
  const [i, j] = [calls.findIndex(({ section }) => section === one), calls.findIndex(({ section }) => section === other)];
  const [a, b] = [calls[i], calls[j]];
  return a === undefined || b === undefined ? calls : calls.with(i, b).with(j, a);
}

function offsetOf({ buffers }: VerifyInput, name: string): number {
  return buffers.find((buffer) => buffer.name === name)?.offset ?? 0;
}
