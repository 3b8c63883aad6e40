/** One damage at a time to a schedule's order, arguments and roles: every wait, mask bit, argument and role of it in turn. */
import type { Parameter, Role } from '../../src/schedule/op.js';
import type { Call } from '../../src/schedule/program.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { withSection } from './bend.js';

export interface Damage {
  readonly what: string;
  readonly plan: VerifyInput;
}

export function* droppedWaits(plan: VerifyInput): Generator<Damage> {
  for (const { name, ops } of plan.sections) {
    for (const op of ops) {
      for (const wait of op.waits) {
        const weaker = { ...op, waits: op.waits.filter((other) => other !== wait) };
        const what = `${name}: op ${op.id} no longer waits for op ${wait}`;
        yield {
          what,
          plan: withSection(plan, name, (section) => ({ ...section, ops: section.ops.map((one) => (one === op ? weaker : one)) })),
        };
      }
    }
  }
}

/** The first call apart: what it waits for is left by another micro-step. */
export function* droppedBits(plan: VerifyInput): Generator<Damage> {
  for (const call of callsOf(plan).slice(1)) {
    for (const [stream, mask] of call.waits.entries()) {
      for (let bit = 0; bit < plan.streams.length; bit++) {
        if ((mask & (1 << bit)) === 0) continue;
        const waits = call.waits.with(stream, mask - (1 << bit));
        const what = `${call.section}(${call.args.join(', ')}): ${plan.streams[stream]} no longer waits for ${plan.streams[bit]}`;
        yield { what, plan: withCall(plan, call, { ...call, waits }) };
      }
    }
  }
}

export function* changedArgs(plan: VerifyInput): Generator<Damage> {
  for (const call of callsOf(plan)) {
    for (const [i, arg] of call.args.entries()) {
      for (const other of [0, 1, 2, 3, 4]) {
        if (other === arg) continue;
        const what = `${call.section}(${call.args.join(', ')}): argument ${i} is ${other}`;
        yield { what, plan: withCall(plan, call, { ...call, args: call.args.with(i, other) }) };
      }
    }
  }
}

export function* changedRoles(plan: VerifyInput): Generator<Damage> {
  for (const { name, params } of plan.sections) {
    for (const param of params) {
      for (const when of ['entry', 'exit'] as const) {
        const role = param[when];
        if (role === undefined) continue;
        for (const [how, changed] of [...otherRoles(role), ['gone', undefined] as const]) {
          const { [when]: _, ...rest } = param;
          const damaged: Parameter = changed === undefined ? rest : { ...rest, [when]: changed };
          const what = `${name}: ${when} of ${param.name} is ${how}`;
          yield {
            what,
            plan: withSection(plan, name, (section) => ({ ...section, params: params.map((one) => (one === param ? damaged : one)) })),
          };
        }
      }
    }
  }
}

function otherRoles({ value, layer }: Role): readonly (readonly [string, Role])[] {
  const other = value === 'hidden' ? 'attentionOutput' : 'hidden';
  return [
    ['a layer later', { value, layer: layer + 1 }],
    ['a layer earlier', { value, layer: layer - 1 }],
    [other, { value: other, layer }],
  ];
}

function callsOf(plan: VerifyInput): readonly Call[] {
  return plan.programs.train.turns.flatMap(({ calls }) => calls.filter(({ owner }) => owner === 'plan'));
}

export function withCall(plan: VerifyInput, call: Call, changed: Call): VerifyInput {
  const turns = plan.programs.train.turns.map((turn) => ({ ...turn, calls: turn.calls.map((one) => (one === call ? changed : one)) }));
  return { ...plan, programs: { train: { turns } } };
}

/** Each buffer once at the start of another of its pool. */
export function* movedBuffers(plan: VerifyInput, random: () => number): Generator<Damage> {
  for (const buffer of plan.buffers) {
    const others = plan.buffers.filter(({ pool, offset }) => pool === buffer.pool && offset !== buffer.offset);
    const other = others[Math.floor(random() * others.length)];
    const arena = plan.pools.find(({ name }) => name === buffer.pool)?.bytes ?? 0;
    if (other === undefined || other.offset + buffer.instances * buffer.instanceBytes > arena) continue;
    const moved = { ...buffer, offset: other.offset };
    yield {
      what: `${buffer.name} is where ${other.name} begins`,
      plan: { ...plan, buffers: plan.buffers.map((one) => (one === buffer ? moved : one)) },
    };
  }
}
