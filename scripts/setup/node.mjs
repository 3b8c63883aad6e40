/** The JavaScript half of setup: packages, compiled library, native addon. */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, SetupError, hashOf, isStamped, lastLines, runLogged, say, stamp, timed } from './shared.mjs';

const OLDEST_NODE = [20, 19];

export function checkNode(version = process.versions.node) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  throw new SetupError(`Node ${version} is too old, expected ${OLDEST_NODE.join('.')} or newer`, 'Install Node 20.19 or newer.');
}

export function installPackages() {
  if (packagesMatchLock()) return;
  timed('installing the pinned npm packages (npm ci)', () =>
    runLogged('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], { log: 'npm.log', what: 'npm ci' }),
  );
}

/** True when node_modules holds every required package of package-lock.json in its pinned version. */
export function packagesMatchLock(root = ROOT) {
  const installedPath = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installedPath)) return false;
  const installed = JSON.parse(readFileSync(installedPath, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(
    ([path, entry]) => path === '' || entry.optional === true || installed[path]?.version === entry.version,
  );
}

export function buildLibrary() {
  const builders = ['scripts/setup/build.mjs', 'scripts/setup/codeCache.mjs'];
  // The code cache is of one version of V8.
  const hash = hashOf(['src', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json', ...builders], process.version);
  if (isStamped('dist', hash)) return;
  timed('compiling TypeScript to dist/', () => {
    runLogged(process.execPath, [join(ROOT, 'scripts', 'setup', 'build.mjs')], { log: 'build.log', what: 'the build of dist/' });
    stamp('dist', hash);
  });
}

/** Builds the native addon, and returns whether it is there. Without a compiler what it knows is missing: that is said and no error. */
export function buildNative() {
  const script = join(ROOT, 'native', 'build.mjs');
  const hash = hashOf(['native'], process.arch);
  if (existsSync(join(ROOT, 'native', 'build', 'fpdt.node')) && isStamped('native/build', hash)) return true;
  say('building the native addon ...');
  const result = spawnSync(process.execPath, [script, '--strict'], { cwd: ROOT, encoding: 'utf8' });
  if (result.status === 0) {
    stamp('native/build', hash);
    say('  done');
    return true;
  }
  // The script says in one line why, and what does not work without it.
  say(lastLines(`${result.stderr ?? ''}${result.error?.message ?? ''}`, 1).trimStart());
  return false;
}
