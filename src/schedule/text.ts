/**
 * The text form of an op, one line, that parses back:
 *
 *   12 attn t[1536:2048) kv[0:1536) mask causal r q[0:512) k[0:1536) v[0:1536) w o[0:512) lse[0:512) after 9 11 scratch 4096
 *
 * A view is `o#3[0:32)` in instance 3, `x#y+1[0:32)` in the one after the argument of parameter y, and `q[0:32)` in instance 0. The
 * stream is that of the kind's row, or stands after the kind: `copy:h2d`. It is used by `fpdt show`, goldens and errors.
 */
import { OP_ROWS, type OpKind } from '../catalog/ops/index.js';
import type { Access, Attribute, HeadGroup, Mask, Op, Parameter, Range, Role, Section } from './op.js';
import type { Schedule } from './schedule.js';

/** What names and numbers in the text of an op mean. */
export type TextSchedule = Pick<Schedule, 'attributes'> & { readonly buffers: Names };
type Names = readonly { readonly id: number; readonly name: string }[];
type Params = readonly Pick<Parameter, 'name'>[];
export interface TextSection {
  readonly params: Params;
}

const GROUPS = [
  ['r', 'reads'],
  ['w', 'writes'],
  ['a', 'accumulates'],
] as const;

export function opToText(op: Op, section: TextSection, schedule: TextSchedule): string {
  const groups = GROUPS.flatMap(([letter, group]) =>
    op[group].length === 0 ? [] : [letter, ...op[group].map((access) => accessToText(access, section, schedule))],
  );
  return [
    `${op.id} ${kindToText(op)} t${rangeToText(op.tokens)}`,
    ...(op.kv === undefined ? [] : [`kv${rangeToText(op.kv)}`]),
    ...(op.attribute === undefined ? [] : [attributeToText(schedule.attributes[op.attribute], op.attribute)]),
    ...groups,
    ...(op.waits.length === 0 ? [] : ['after', ...op.waits]),
    ...(op.scratchBytes === 0 ? [] : ['scratch', op.scratchBytes]),
  ].join(' ');
}

function kindToText({ kind, stream }: Op): string {
  return OP_ROWS[kind]?.stream === stream ? kind : `${kind}:${stream}`;
}

/** `mask causal`, `mask window 4096`, `tiles 4`, `heads 1 of 4`, `heads all of 4`. */
export function attributeToText(attribute: Attribute | undefined, number: number): string {
  if (attribute === undefined) return `attribute${number}`;
  const { mask, tiles, heads } = attribute;
  return [
    ...(mask === undefined ? [] : ['mask', mask.kind, ...(mask.kind === 'window' ? [mask.window] : [])]),
    ...(tiles === undefined ? [] : ['tiles', tiles]),
    ...(heads === undefined ? [] : ['heads', heads.group ?? 'all', 'of', heads.groups]),
  ].join(' ');
}

function rangeToText({ start, end }: Range): string {
  return `[${start}:${end})`;
}

export function accessToText(
  { buffer, rows, param, index }: Access,
  { params }: TextSection,
  { buffers }: Pick<TextSchedule, 'buffers'>,
): string {
  const name = buffers[buffer]?.name ?? `buffer${buffer}`;
  const instance = param < 0 ? String(index) : `${params[param]?.name ?? `param${param}`}${offsetToText(index)}`;
  return `${name}${param < 0 && index === 0 ? '' : `#${instance}`}${rangeToText(rows)}`;
}

/** Nothing, `+1` or `-1`. */
function offsetToText(value: number): string {
  return value === 0 ? '' : value > 0 ? `+${value}` : String(value);
}

/** `section layerForward(x: hidden+0 ->, y: -> hidden+1)`, then an op a line. */
export function sectionToText(section: Section, schedule: TextSchedule): string {
  const head = `section ${section.name}(${section.params.map(parameterToText).join(', ')})`;
  return [head, ...section.ops.map((op) => `  ${opToText(op, section, schedule)}`)].join('\n');
}

function parameterToText({ name, entry, exit }: Parameter): string {
  if (entry === undefined && exit === undefined) return name;
  const role = ({ value, layer }: Role): string => `${value}${layer < 0 ? layer : `+${layer}`}`;
  return [`${name}:`, ...(entry === undefined ? [] : [role(entry)]), '->', ...(exit === undefined ? [] : [role(exit)])].join(' ');
}

/** Parses one line of opToText. Throws a SyntaxError that names the word it does not understand. */
export function opFromText(text: string, section: TextSection, schedule: TextSchedule): Op {
  const words = new Words(text);
  const id = toInteger(words.next('an id'));
  const { kind, stream } = kindFromText(words.next('a kind'), text);
  const tokens = rangeFromText(words.next('tokens').replace(/^t/, ''));
  const parsed = { reads: [] as Access[], writes: [] as Access[], accumulates: [] as Access[] };
  let kv: Range | undefined;
  let attribute: Attribute | undefined;
  let waits: readonly number[] = [];
  let scratchBytes = 0;
  while (!words.isEmpty) {
    const word = words.next('a group');
    const group = GROUPS.find(([letter]) => letter === word)?.[1];
    if (group !== undefined) parsed[group] = words.takeWhile(isView).map((view) => accessFromText(view, section, schedule));
    else if (word.startsWith('kv[')) kv = rangeFromText(word.slice(2));
    else if (word === 'mask') attribute = { ...attribute, mask: maskFromText(words) };
    else if (word === 'tiles') attribute = { ...attribute, tiles: toInteger(words.next('a number of tiles')) };
    else if (word === 'heads') attribute = { ...attribute, heads: headsFromText(words) };
    else if (word === 'after') waits = words.takeWhile((item) => /^\d+$/.test(item)).map(toInteger);
    else if (word === 'scratch') scratchBytes = toInteger(words.next('bytes'));
    else throw new SyntaxError(`did not understand "${word}" in: ${text}`);
  }
  return {
    id,
    kind,
    stream,
    tokens,
    ...(kv === undefined ? {} : { kv }),
    ...(attribute === undefined ? {} : { attribute: attributeNumber(attribute, schedule) }),
    ...parsed,
    waits,
    scratchBytes,
  };
}

function kindFromText(word: string, text: string): Pick<Op, 'kind' | 'stream'> {
  const [kind = '', given] = word.split(':');
  if (!Object.hasOwn(OP_ROWS, kind)) throw new SyntaxError(`unknown op kind ${kind} in: ${text}`);
  const { stream } = OP_ROWS[kind as OpKind];
  if (given === undefined && stream === 'link')
    throw new SyntaxError(`${kind} needs the stream of its link, as in ${kind}:h2d, in: ${text}`);
  return { kind: kind as OpKind, stream: given ?? stream };
}

function maskFromText(words: Words): Mask {
  const kind = words.next('a mask');
  if (kind === 'full' || kind === 'causal') return { kind };
  if (kind === 'window') return { kind, window: toInteger(words.next('a window')) };
  throw new SyntaxError(`expected a mask full, causal or window, found ${kind}`);
}

function headsFromText(words: Words): HeadGroup {
  const group = words.next('a group of heads');
  if (words.next('of') !== 'of') throw new SyntaxError(`expected heads ${group} of a number of groups`);
  const groups = toInteger(words.next('a number of groups'));
  return group === 'all' ? { groups } : { groups, group: toInteger(group) };
}

/** Attributes are interned: the text names a record, the op its number. */
function attributeNumber(wanted: Attribute, { attributes }: TextSchedule): number {
  const text = attributeToText(wanted, -1);
  const number = attributes.findIndex((attribute, n) => attributeToText(attribute, n) === text);
  if (number < 0) throw new SyntaxError(`the plan has no attribute "${text}"`);
  return number;
}

/** Parses sectionToText. */
export function sectionFromText(text: string, schedule: TextSchedule): Section {
  const [first = '', ...lines] = text.split('\n').filter((line) => line.trim() !== '');
  const [, name, params] = /^section ([\w.]+)\((.*)\)$/.exec(first.trim()) ?? [];
  if (name === undefined || params === undefined) throw new SyntaxError(`expected "section <name>(<parameters>)", found ${first}`);
  const section = { name, params: params === '' ? [] : params.split(', ').map(parameterFromText) };
  return { ...section, ops: lines.map((line) => opFromText(line, section, schedule)) };
}

const ROLE = String.raw`(hidden|hiddenGradient|attentionOutput|internals)([+-]\d+)`;
const PARAMETER = new RegExp(String.raw`^(\w+)(?::(?: ${ROLE})? ->(?: ${ROLE})?)?$`);

function parameterFromText(text: string): Parameter {
  const [, name, entry, entryLayer, exit, exitLayer] = PARAMETER.exec(text) ?? [];
  if (name === undefined) throw new SyntaxError(`expected a parameter like "x: hidden+0 ->", found ${text}`);
  const role = (value: string, layer: string | undefined): Role => ({ value: value as Role['value'], layer: Number(layer) });
  return {
    name,
    ...(entry === undefined ? {} : { entry: role(entry, entryLayer) }),
    ...(exit === undefined ? {} : { exit: role(exit, exitLayer) }),
  };
}

function rangeFromText(text: string): Range {
  const match = /^\[(\d+):(\d+)\)$/.exec(text);
  if (match === null) throw new SyntaxError(`expected a range like [0:512), found ${text}`);
  return { start: Number(match[1]), end: Number(match[2]) };
}

const VIEW = /^([\w.@]+)(?:#(?:([A-Za-z]\w*)([+-]\d+)?|(-?\d+)))?(\[\d+:\d+\))$/;

function isView(word: string): boolean {
  return VIEW.test(word);
}

function accessFromText(text: string, { params }: TextSection, { buffers }: TextSchedule): Access {
  const [, name, paramName, offset, fixed, rows = ''] = VIEW.exec(text) ?? [];
  const buffer = buffers.find((candidate) => candidate.name === name);
  if (buffer === undefined) throw new SyntaxError(`no buffer is called ${name}`);
  const param = paramName === undefined ? -1 : params.findIndex((candidate) => candidate.name === paramName);
  if (paramName !== undefined && param < 0) throw new SyntaxError(`no parameter is called ${paramName}`);
  return { buffer: buffer.id, rows: rangeFromText(rows), param, index: Number((param < 0 ? fixed : offset) ?? 0) };
}

/** The words of a line, taken from the left. */
class Words {
  readonly #text: string;
  readonly #words: string[];

  constructor(text: string) {
    this.#text = text;
    this.#words = text.trim().split(/\s+/);
  }

  get isEmpty(): boolean {
    return this.#words.length === 0;
  }

  next(what: string): string {
    const word = this.#words.shift();
    if (word === undefined) throw new SyntaxError(`the text ends where ${what} was expected: ${this.#text}`);
    return word;
  }

  takeWhile(belongs: (word: string) => boolean): string[] {
    const end = this.#words.findIndex((word) => !belongs(word));
    return this.#words.splice(0, end < 0 ? this.#words.length : end);
  }
}

function toInteger(word: string): number {
  if (!/^\d+$/.test(word)) throw new SyntaxError(`expected a whole number, found ${word}`);
  return Number(word);
}
