/**
 * The text form of an op, one line, that parses back:
 *
 *   12 attn L0 t[1536:2048) kv[0:1536) r q[0:512) k[0:1536) v[0:1536) w oPart[0:512) lsePart[0:512) after 9 11 scratch 4096
 *
 * A view of an instance is `o#layer`, `x#segment+1` or `xInner#1`, as in `x#segment+1[0:32)`. It is used by `fpdt show`, goldens and errors.
 */
import type { Buffer } from './buffer.js';
import { type Access, OP_KINDS, type Op, type OpKind, type Range, type Section, type SectionPart } from './op.js';

type Names = readonly Pick<Buffer, 'id' | 'name'>[];

const GROUPS = [
  ['r', 'reads'],
  ['w', 'writes'],
  ['a', 'accumulates'],
] as const;

export function opToText(op: Op, buffers: Names): string {
  const groups = GROUPS.flatMap(([letter, group]) =>
    op[group].length === 0 ? [] : [letter, ...op[group].map((access) => accessToText(access, buffers))],
  );
  return [
    `${op.id} ${op.kind} L${op.layerSlot} t${rangeToText(op.tokens)}`,
    ...(op.kv === undefined ? [] : [`kv${rangeToText(op.kv)}`]),
    ...groups,
    ...(op.waits.length === 0 ? [] : ['after', ...op.waits]),
    ...(op.scratchBytes === 0 ? [] : ['scratch', op.scratchBytes]),
  ].join(' ');
}

/** Parses one line of opToText. Throws a SyntaxError that names the word it does not understand. */
export function opFromText(text: string, buffers: Names): Op {
  const words = text.trim().split(/\s+/);
  const next = (what: string): string => {
    const word = words.shift();
    if (word === undefined) throw new SyntaxError(`op text ends where ${what} was expected: ${text}`);
    return word;
  };
  const id = toInteger(next('an id'));
  const kind = next('a kind');
  if (!(kind in OP_KINDS)) throw new SyntaxError(`unknown op kind ${kind} in: ${text}`);
  const layerSlot = toInteger(next('a layer slot').replace(/^L/, ''));
  const tokens = rangeFromText(next('tokens').replace(/^t/, ''));
  const kv = words[0]?.startsWith('kv[') === true ? rangeFromText(next('kv').replace(/^kv/, '')) : undefined;
  const parsed = { reads: [] as Access[], writes: [] as Access[], accumulates: [] as Access[] };
  let waits: readonly number[] = [];
  let scratchBytes = 0;
  while (words.length > 0) {
    const word = next('a group');
    const group = GROUPS.find(([letter]) => letter === word)?.[1];
    if (group !== undefined) parsed[group] = takeWhile(words, isView).map((view) => accessFromText(view, buffers));
    else if (word === 'after') waits = takeWhile(words, (item) => /^\d+$/.test(item)).map(toInteger);
    else if (word === 'scratch') scratchBytes = toInteger(next('bytes'));
    else throw new SyntaxError(`did not understand "${word}" in: ${text}`);
  }
  const stream = OP_KINDS[kind as OpKind].stream;
  return { id, kind: kind as OpKind, stream, layerSlot, tokens, ...(kv === undefined ? {} : { kv }), ...parsed, waits, scratchBytes };
}

export function sectionToText(section: Section, buffers: Names): string {
  return section.parts
    .map((part) =>
      [
        `${section.name} part L${part.layerSlot}`,
        ...section.ops.slice(part.start, part.end).map((op) => `  ${opToText(op, buffers)}`),
      ].join('\n'),
    )
    .join('\n');
}

/** Parses sectionToText. */
export function sectionFromText(text: string, buffers: Names): Section {
  const ops: Op[] = [];
  const parts: SectionPart[] = [];
  let name: string | undefined;
  for (const line of text.split('\n').filter((item) => item.trim() !== '')) {
    const head = /^(\w+) part L(\d+)$/.exec(line);
    if (head === null) {
      ops.push(opFromText(line, buffers));
      continue;
    }
    name = head[1];
    const last = parts.pop();
    if (last !== undefined) parts.push({ ...last, end: ops.length });
    parts.push({ layerSlot: toInteger(head[2] ?? ''), start: ops.length, end: -1 });
  }
  const last = parts.pop();
  if (name === undefined || last === undefined) throw new SyntaxError('section text has no "<section> part L<slot>" line');
  return { name: name as Section['name'], ops, parts: [...parts, { ...last, end: ops.length }] };
}

export function rangeToText({ start, end }: Range): string {
  return `[${start}:${end})`;
}

function rangeFromText(text: string): Range {
  const match = /^\[(\d+):(\d+)\)$/.exec(text);
  if (match === null) throw new SyntaxError(`expected a range like [0:512), found ${text}`);
  return { start: Number(match[1]), end: Number(match[2]) };
}

export function accessToText({ buffer, rows, bind, index }: Access, buffers: Names): string {
  const name = buffers[buffer]?.name ?? `buffer${buffer}`;
  const instance = bind === 'fixed' ? (index === 0 ? '' : `#${index}`) : `#${bind}${index === 0 ? '' : `+${index}`}`;
  return `${name}${instance}${rangeToText(rows)}`;
}

const VIEW = /^([\w.]+)(?:#(?:(segment|layer)(?:\+(\d+))?|(\d+)))?(\[\d+:\d+\))$/;

function isView(word: string): boolean {
  return VIEW.test(word);
}

function accessFromText(text: string, buffers: Names): Access {
  const [, name, bind, offset, fixed, rows] = VIEW.exec(text) ?? [];
  const buffer = buffers.find((candidate) => candidate.name === name);
  if (buffer === undefined) throw new SyntaxError(`no buffer is called ${name}`);
  return {
    buffer: buffer.id,
    rows: rangeFromText(rows ?? ''),
    bind: (bind as 'segment' | 'layer' | undefined) ?? 'fixed',
    index: Number(bind === undefined ? (fixed ?? 0) : (offset ?? 0)),
  };
}

function takeWhile(words: string[], belongs: (word: string) => boolean): string[] {
  const end = words.findIndex((word) => !belongs(word));
  return words.splice(0, end < 0 ? words.length : end);
}

function toInteger(word: string): number {
  if (!/^\d+$/.test(word)) throw new SyntaxError(`expected a whole number, found ${word}`);
  return Number(word);
}
