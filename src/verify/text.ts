/** How errors write ops, views and roles: the one place where the verifier meets the text form of a plan. */
import type { Role } from '../schedule/op.js';
import { accessToText, opToText } from '../schedule/text.js';
import type { Context } from './context.js';
import type { FlatSection } from './flat.js';
import type { CallName, Violation } from './violation.js';

function opText({ section }: FlatSection, op: number, { input }: Context): string {
  const found = section.ops[op];
  return found === undefined ? '' : opToText(found, section, input);
}

export function viewText({ section, views }: FlatSection, view: number, { input }: Context): string {
  return accessToText(views.access(view), section, input);
}

/** `hidden 3`. */
export function roleText({ value, layer }: Role): string {
  return `${value} ${layer}`;
}

/** A violation at an op of a section, in a call where the call matters. */
export function atOp(flat: FlatSection, op: number, problem: string, context: Context, call?: CallName): Violation {
  return { section: flat.section.name, op, ...(call === undefined ? {} : { call }), text: opText(flat, op, context), problem };
}
