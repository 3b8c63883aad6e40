/** Functions that change one thing of a plan: a buffer, an op, a view, a line of text, a call or the turns. */
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import type { Call, Turn } from '../../src/schedule/program.js';
import { opToText, sectionToText } from '../../src/schedule/text.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { bufferNamed, parseSection } from './small.js';

export function withBuffer(plan: VerifyInput, name: string, more: Partial<Buffer>): VerifyInput {
  const { id } = bufferNamed(plan.buffers, name);
  return { ...plan, buffers: plan.buffers.map((one) => (one.id === id ? { ...one, ...more } : one)) };
}

export function withSection(plan: VerifyInput, name: string, change: (section: Section) => Section): VerifyInput {
  if (!plan.sections.some((section) => section.name === name)) throw new Error(`no section is called ${name}`);
  return { ...plan, sections: plan.sections.map((section) => (section.name === name ? change(section) : section)) };
}

/** Changes the nth op of a kind. */
export function withOp(plan: VerifyInput, name: string, kind: Op['kind'], change: (op: Op) => Op, nth = 0): VerifyInput {
  return withSection(plan, name, (section) => {
    const found = nthOp(section, kind, nth);
    return { ...section, ops: section.ops.map((op) => (op === found ? change(op) : op)) };
  });
}

function nthOp({ name, ops }: Section, kind: Op['kind'], nth: number): Op {
  const found = ops.filter((op) => op.kind === kind)[nth];
  if (found === undefined) throw new Error(`${name} has no ${kind} number ${nth}`);
  return found;
}

type AccessChange = Partial<Omit<Access, 'buffer'>> & { readonly buffer?: string };

/** Changes a view of the first op of a kind. */
export function withAccess(
  plan: VerifyInput,
  name: string,
  kind: Op['kind'],
  group: 'reads' | 'writes' | 'accumulates',
  position: number,
  { buffer, ...more }: AccessChange,
): VerifyInput {
  const id = buffer === undefined ? {} : { buffer: bufferNamed(plan.buffers, buffer).id };
  return withOp(plan, name, kind, (op) => ({
    ...op,
    [group]: op[group].map((one, i) => (i === position ? { ...one, ...more, ...id } : one)),
  }));
}

/** Rewrites the line of the nth op of a kind; ids and waits are found anew. `drop`: a kind whose first op goes. */
export function withLine(
  plan: VerifyInput,
  name: string,
  kind: Op['kind'],
  change: (line: string) => string,
  nth = 0,
  { drop }: { readonly drop?: Op['kind'] } = {},
): VerifyInput {
  return withSection(plan, name, (section) => {
    const found = nthOp(section, kind, nth);
    const dropped = drop === undefined ? undefined : nthOp(section, drop, 0);
    const lines = section.ops.flatMap((op) => {
      const line = opToText({ ...op, waits: [] }, section, plan).replace(/^\d+ /, '');
      return op === dropped ? [] : [op === found ? change(line) : line];
    });
    const head = sectionToText({ ...section, ops: [] }, plan);
    return parseSection([head, ...lines].join('\n'), plan.buffers);
  });
}

export function withoutOp(plan: VerifyInput, name: string, kind: Op['kind'], nth = 0): VerifyInput {
  return withLine(plan, name, kind, () => '', nth);
}

/** Changes the first call of a section. */
export function withCalls(plan: VerifyInput, section: string, change: (call: Call) => Call): VerifyInput {
  const found = plan.programs.train.turns.flatMap(({ calls }) => calls).find((call) => call.section === section && call.owner === 'plan');
  if (found === undefined) throw new Error(`no call of ${section}`);
  return withTurns(plan, (turns) =>
    turns.map((turn) => ({ ...turn, calls: turn.calls.map((call) => (call === found ? change(call) : call)) })),
  );
}

export function withTurns(plan: VerifyInput, change: (turns: readonly Turn[]) => readonly (Turn | undefined)[]): VerifyInput {
  return { ...plan, programs: { train: { turns: change(plan.programs.train.turns).filter((turn) => turn !== undefined) } } };
}
