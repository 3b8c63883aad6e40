/** What the steps of making an environment share. */
import { join } from 'node:path';
import { runLogged } from './command.js';
import type { Installer } from './installer.js';
import { REQUIREMENTS } from './pins.js';

export type Say = (line: string) => void;

export interface Steps {
  readonly installer: Installer;
  readonly python: string;
  readonly folder: string;
  readonly say: Say;
}

/** Installs within the pins of the requirements. Throws `setup-failed`. */
export function installInto({ installer, python, folder }: Steps, args: readonly string[]): void {
  const [file, ...all] = installer.install(python, ['-c', REQUIREMENTS, ...args]);
  runLogged({ file, args: all, log: logOf(folder), environment: { DS_BUILD_OPS: '0' } });
}

export function logOf(folder: string): string {
  return join(folder, '.fpdt-setup.log');
}

/** Says what is done, and how long it took. */
export function timed<T>(say: Say, what: string, work: () => T): T {
  const started = performance.now();
  say(`${what} ...`);
  const result = work();
  say(`  done in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  return result;
}
