/** Two hosts as far as a network goes: two namespaces of Linux with a cable between them. Needs root. */

import { execFileSync } from 'node:child_process';

export interface Namespaces {
  readonly names: readonly [string, string];
  readonly addresses: readonly [string, string];
  readonly remove: () => void;
}

/** An error says what a machine lacks, and how a suite is run without: nothing is left out in silence. */
export function makeNamespaces(): Namespaces {
  const id = String(process.pid);
  const names = [`fpdt-${id}-a`, `fpdt-${id}-b`] as const;
  const links = [`fp${id}a`, `fp${id}b`] as const;
  const subnet = `10.${(process.pid >> 8) & 255}.${process.pid & 255}`;
  const addresses = [`${subnet}.1`, `${subnet}.2`] as const;
  const remove = (): void => {
    // Their ends of the cable go with them.
    for (const name of names) if (listed().includes(name)) ip('netns', 'delete', name);
  };
  try {
    for (const name of names) ip('netns', 'add', name);
    ip('link', 'add', links[0], 'netns', names[0], 'type', 'veth', 'peer', 'name', links[1], 'netns', names[1]);
    for (const [side, name] of names.entries()) {
      const [link = '', address = ''] = [links[side], addresses[side]];
      ip('-n', name, 'address', 'add', `${address}/24`, 'dev', link);
      for (const one of ['lo', link]) ip('-n', name, 'link', 'set', one, 'up');
    }
  } catch (error) {
    remove();
    throw new Error(
      `this machine makes no network namespaces (${(error as Error).message}): run as root on Linux with iproute2, or leave the tests of two hosts out with FPDT_TEST_NAMESPACES=off`,
    );
  }
  return { names, addresses, remove };
}

function listed(): readonly string[] {
  return ip('netns', 'list')
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '');
}

function ip(...args: readonly string[]): string {
  return execFileSync('ip', [...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
