/** A folder with the packed package in it as a user has it, and what runs there. */
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { FpdtError } from '../../src/spec/errors.js';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A user's folder, `fpdt` in its node_modules. */
export interface Place {
  readonly folder: string;
  readonly node: string;
  /** Where there is one, the Python that has torch and DeepSpeed. */
  readonly python: string | undefined;
}

export interface Ran {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** `npm pack` into `folder`: the tarball and the paths inside. */
export async function pack(folder: string): Promise<{ readonly tarball: string; readonly paths: readonly string[] }> {
  // The scripts of npm that runs this one would be asked again: its environment says what npm was asked.
  const { stdout } = await tool('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', folder], ROOT);
  const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? 'none');
  const [first] = JSON.parse(stdout.slice(stdout.search(/^\[/m))) as readonly { readonly files: readonly { readonly path: string }[] }[];
  return { tarball, paths: (first?.files ?? []).map(({ path }) => path) };
}

/** `npm install TARBALL` in an empty folder, from npm's cache where that has the dependencies. */
export async function install(tarball: string, folder: string): Promise<void> {
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  await tool('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error', tarball], folder);
}

/** As `install`, without npm: the packages of this checkout are those of the package. */
export async function unpack(tarball: string, folder: string): Promise<void> {
  const packages = join(folder, 'node_modules');
  mkdirSync(join(packages, 'fpdt'), { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  await tool('tar', ['-xzf', tarball, '--strip-components=1', '-C', join(packages, 'fpdt')], folder);
  symlinkSync(join(ROOT, 'node_modules'), join(packages, 'fpdt', 'node_modules'));
}

/** The installed command, by `place`'s Node, with `environment` and nothing else of this one but HOME. */
export async function fpdt(place: Place, args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const main = join(place.folder, 'node_modules', 'fpdt', 'dist', 'cli', 'main.js');
  return await run(place, [main, ...args], environment);
}

/** `args` of `place`'s Node there. PATH has Node alone: neither Python nor a compiler. */
export async function run(
  { folder, node }: Place,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const env = { HOME: folder, PATH: onlyNode(folder, node), OMP_NUM_THREADS: '1', ...environment };
  const { exitCode, stdout, stderr } = await execa(node, args, { cwd: folder, env, extendEnv: false, reject: false });
  return { exitCode, stdout, stderr };
}

/** Throws `pack-failed` with the end of what the command said. */
export async function tool(file: string, args: readonly string[], cwd: string): Promise<Ran> {
  const { exitCode, stdout, stderr } = await execa(file, args, { cwd, reject: false, env: { npm_config_update_notifier: 'false' } });
  if (exitCode === 0) return { exitCode, stdout, stderr };
  throw packFailed(`${[file, ...args].join(' ')} ended with ${exitCode}`, `${stdout}\n${stderr}`);
}

export function packFailed(message: string, said: string): FpdtError {
  const tail = said.trim().split('\n').slice(-20).join('\n');
  return new FpdtError(message, { code: 'pack-failed', hint: 'mend what the lines above name', details: { stderrTail: tail } });
}

function onlyNode(folder: string, node: string): string {
  const path = join(folder, '.only-node');
  mkdirSync(path, { recursive: true });
  const link = join(path, 'node');
  if (!readdirSync(path).includes('node')) symlinkSync(node, link);
  return dirname(link);
}
