/**
 * The text form of a step program, a line for every turn and call, that parses back:
 *
 *   layer 3 forward: gather() layer 3 by zero
 *   layer 3 forward: layerForward(x=3, y=4, saved=3) layer 3 waits compute<h2d,d2h comm<compute
 *
 * `compute<h2d,d2h`: before its first op of the call, compute waits for what h2d and d2h were given before. `waits all`: every
 * stream for every other.
 */
import type { Call, Program, Turn } from './program.js';
import { turnName } from './program.js';
import type { Section } from './op.js';
import type { Schedule } from './schedule.js';

type TextParts = Pick<Schedule, 'streams'> & { readonly sections: readonly Pick<Section, 'name' | 'params'>[] };

export function programToText({ turns }: Program, schedule: TextParts): string {
  return turns
    .flatMap((turn) => {
      const name = turnName(turn);
      return turn.calls.length === 0 ? [`${name}:`] : turn.calls.map((call) => `${name}: ${callToText(call, schedule)}`);
    })
    .join('\n');
}

export function callToText({ section, args, layer, owner, waits }: Call, { streams, sections }: TextParts): string {
  const params = sections.find(({ name }) => name === section)?.params ?? [];
  const bound = args.map((arg, i) => `${params[i]?.name ?? `param${i}`}=${arg}`).join(', ');
  return [
    `${section}(${bound})`,
    ...(layer === undefined ? [] : [`layer ${layer}`]),
    ...(owner === 'plan' ? [] : [`by ${owner}`]),
    ...waitsToText(waits, streams),
  ].join(' ');
}

function waitsToText(waits: readonly number[], streams: readonly string[]): readonly string[] {
  if (waits.every((mask) => mask === 0)) return [];
  if (isAll(waits, streams)) return ['waits all'];
  const listed = waits.flatMap((mask, stream) => {
    const others = streams.filter((_, bit) => hasBit(mask, bit));
    return others.length === 0 ? [] : [`${streams[stream]}<${others.join(',')}`];
  });
  return [`waits ${listed.join(' ')}`];
}

function isAll(waits: readonly number[], streams: readonly string[]): boolean {
  return fullMasks(streams).every((mask, stream) => mask === waits[stream]);
}

/** Every stream waits for every other. */
export function fullMasks(streams: readonly string[]): readonly number[] {
  const all = 2 ** streams.length - 1;
  return streams.map((_, stream) => all - 2 ** stream);
}

function hasBit(mask: number, bit: number): boolean {
  return Math.floor(mask / 2 ** bit) % 2 === 1;
}

/** Parses programToText. Throws a SyntaxError that shows the line it does not understand. */
export function programFromText(text: string, schedule: TextParts): Program {
  const turns: { name: string; turn: Turn; calls: Call[] }[] = [];
  for (const line of text.split('\n').filter((item) => item.trim() !== '')) {
    const [, name, module, layer, direction, rest] = TURN.exec(line.trim()) ?? [];
    if (name === undefined) throw new SyntaxError(`expected "<turn>: <call>", found ${line}`);
    let last = turns.at(-1);
    if (last?.name !== name) {
      const calls: Call[] = [];
      const numbered = layer === undefined ? {} : { layer: Number(layer) };
      const turn = { module: module as Turn['module'], ...numbered, direction: direction as Turn['direction'], calls };
      last = { name, turn, calls };
      turns.push(last);
    }
    if (rest !== undefined && rest !== '') last.calls.push(callFromText(rest, schedule));
  }
  return { turns: turns.map(({ turn }) => turn) };
}

const TURN = /^((embed|layer|head|end)(?: (\d+))? (forward|backward)):(?: (.*))?$/;
const CALL = /^([\w.]+)\(([^)]*)\)(?: layer (\d+))?(?: by (plan|zero))?(?: waits (.*))?$/;

function callFromText(text: string, schedule: TextParts): Call {
  const [, section, bound, layer, owner, waits] = CALL.exec(text) ?? [];
  if (section === undefined || bound === undefined) throw new SyntaxError(`did not understand the call ${text}`);
  return {
    section,
    args: bound === '' ? [] : argsFromText(bound, section, schedule),
    ...(layer === undefined ? {} : { layer: Number(layer) }),
    owner: (owner ?? 'plan') as Call['owner'],
    waits: waitsFromText(waits, schedule.streams),
  };
}

function argsFromText(text: string, section: string, { sections }: TextParts): readonly number[] {
  const params = sections.find(({ name }) => name === section)?.params;
  if (params === undefined) throw new SyntaxError(`no section is called ${section}`);
  return text.split(', ').map((item, i) => {
    const [, name, value] = /^(\w+)=(\d+)$/.exec(item) ?? [];
    const wanted = params[i] === undefined ? `no more than ${params.length} arguments` : `${params[i].name}=<instance>`;
    if (value === undefined || name !== params[i]?.name) throw new SyntaxError(`${section}: expected ${wanted}, found ${item}`);
    return Number(value);
  });
}

function waitsFromText(text: string | undefined, streams: readonly string[]): readonly number[] {
  if (text === 'all') return fullMasks(streams);
  const masks = streams.map(() => 0);
  for (const item of (text ?? '').split(' ').filter((word) => word !== '')) {
    const [waiting = '', others = ''] = item.split('<');
    const bits = others.split(',').map((other) => 2 ** streamNumber(other, streams));
    masks[streamNumber(waiting, streams)] = bits.reduce((sum, bit) => sum + bit, 0);
  }
  return masks;
}

function streamNumber(name: string, streams: readonly string[]): number {
  const number = streams.indexOf(name);
  if (number < 0) throw new SyntaxError(`no stream is called ${name}; there are ${streams.join(', ')}`);
  return number;
}
