/** DeepSpeed's hostfile, `--include` and `--exclude`, read as DeepSpeed 0.19.8 reads them (launcher/runner.py), and errors with lines. */

import { FpdtError } from '../../spec/errors.js';

/** A host, and which of its devices are used. */
export interface HostSlots {
  readonly host: string;
  readonly slots: readonly number[];
}

const LINE = /^(\S+)\s+slots=(\d+)/;
/** More than any host has; each becomes an entry. */
const MOST_SLOTS = 1024;
const EXAMPLE = 'write a line such as `worker-1 slots=8` for each host';

/** Hosts with all their slots, in order. Throws FpdtError `hostfile`. */
export function parseHostfile(text: string, name: string): readonly HostSlots[] {
  const hosts = new Map<string, HostSlots>();
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const [, host, slots] = LINE.exec(line) ?? [];
    const place = `${name}:${index + 1}`;
    if (host === undefined || slots === undefined) throw wrong(`${place}: '${line}' names no host with its slots`);
    // Passed on to ssh, for which it would be an option.
    if (host.startsWith('-')) throw wrong(`${place}: '${host}' is no name of a host`);
    if (Number(slots) > MOST_SLOTS) throw wrong(`${place}: ${host} with ${slots} slots`, `give the GPUs it has, at most ${MOST_SLOTS}`);
    if (hosts.has(host)) throw wrong(`${place}: ${host} stands there twice`, 'add up its slots in one line');
    hosts.set(host, { host, slots: Array.from({ length: Number(slots) }, (_, slot) => slot) });
  }
  if (hosts.size === 0) throw wrong(`${name} names no host`);
  return [...hosts.values()];
}

/** What `include`, or all but `exclude`, leaves: `host`, `host:0,2` or several of these joined by `@`. In the order of the hostfile. */
export function filterHosts(hosts: readonly HostSlots[], include: string | undefined, exclude: string | undefined): readonly HostSlots[] {
  if (include !== undefined && exclude !== undefined)
    throw wrong('--include and --exclude are both given', 'leave one of them out', 'usage');
  const text = include ?? exclude;
  if (text === undefined) return hosts;
  const option = include === undefined ? '--exclude' : '--include';
  const named = parseFilter(text, option, hosts);
  const left = hosts.map(({ host, slots }) => {
    const chosen = named.get(host);
    const isNamed = (slot: number): boolean => chosen !== undefined && (chosen.size === 0 || chosen.has(slot));
    return { host, slots: slots.filter((slot) => isNamed(slot) === (include !== undefined)) };
  });
  const some = left.filter(({ slots }) => slots.length > 0);
  if (some.length === 0) throw wrong(`${option} ${text} leaves no slot`, 'leave a host in');
  return some;
}

/** Slots by host; an empty set stands for all of them. */
function parseFilter(text: string, option: string, hosts: readonly HostSlots[]): ReadonlyMap<string, ReadonlySet<number>> {
  const named = new Map<string, Set<number>>();
  for (const part of text.split('@')) {
    const [host = '', list, ...more] = part.split(':');
    const known = hosts.find((one) => one.host === host);
    if (known === undefined || more.length > 0) {
      throw wrong(`${option}: there is no host '${host}' in the hostfile`, `it has ${hosts.map((one) => one.host).join(', ')}`);
    }
    const slots = named.get(host) ?? new Set();
    for (const word of list?.split(',') ?? []) slots.add(slotOf(word, known, option));
    named.set(host, slots);
  }
  return named;
}

function slotOf(word: string, { host, slots }: HostSlots, option: string): number {
  const slot = /^\s*\d+\s*$/.test(word) ? Number(word) : -1;
  if (slots.includes(slot)) return slot;
  throw wrong(`${option}: ${host} has no slot '${word}'`, `it has ${slots.length}, numbered from 0`);
}

function wrong(message: string, hint = EXAMPLE, code = 'hostfile'): FpdtError {
  return new FpdtError(message, { code, hint });
}
