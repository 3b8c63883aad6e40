/** How a command gets its code: from the one file and the code cache that the build leaves, or from the sources. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';

type Program = typeof import('./program.js');

/** Beside this file when it is built; never in src/. */
export const BUNDLE = 'program.cjs';
export const CODE_CACHE = 'program.cache';

export async function loadProgram(): Promise<Program> {
  setFlags();
  const folder = dirname(fileURLToPath(import.meta.url));
  if (!existsSync(join(folder, BUNDLE))) return await import('./program.js');
  return evaluate(compileBundle(folder), folder);
}

/** Most commands end within a second: to compile what ran a little while with all optimisations, as Node would, took a third of their CPU. */
export function setFlags(): void {
  setFlagsFromString('--interrupt-budget=1000000');
}

/**
 * The bundle as a script, after the flags are set: they are part of what V8 compares. To parse and compile its 1 MB took a third of
 * a small plan's time; from the cache it takes a tenth. V8 refuses the cache of another version of itself, and compiles.
 */
export function compileBundle(folder: string): Script {
  const filename = join(folder, BUNDLE);
  const cache = join(folder, CODE_CACHE);
  const cachedData = existsSync(cache) ? readFileSync(cache) : undefined;
  // On the line of the bundle's first, so that line numbers are those of its source map. esbuild writes ASCII, but for comments.
  const source = `(function (exports, require, module, bundleUrl) {${readFileSync(filename, 'latin1')}\n})`;
  return new Script(source, { filename, ...(cachedData === undefined ? {} : { cachedData }) });
}

/** Runs the bundle as Node would a CommonJS file. */
export function evaluate(script: Script, folder: string): Program {
  const filename = join(folder, BUNDLE);
  const wrapper = script.runInThisContext() as (exports: object, require: NodeJS.Require, module: { exports: object }, url: string) => void;
  const module = { exports: {} };
  wrapper(module.exports, createRequire(filename), module, pathToFileURL(filename).href);
  return module.exports as Program;
}
