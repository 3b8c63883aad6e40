/**
 * Leaves V8's code cache beside the bundle of commands: of the functions that a small plan runs, since V8 compiles a function when it is
 * first called.
 *
 *   node scripts/setup/codeCache.mjs dist/cli
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';

const EXAMPLE = fileURLToPath(new URL('../../examples/llama-3-8b.json', import.meta.url));
const PLANS = [
  ['--gpus', '4', '--gpu', 'a100-80gb', '--seq-len', '128K'],
  ['--gpus', '8', '--gpu', 'h100-80gb', '--seq-len', '1M', '--policy', 'fpdt', '--json'],
];

const folder = resolve(process.argv[2] ?? '');
const { CODE_CACHE, compileBundle, evaluate, setFlags } = await import(pathToFileURL(join(folder, 'bundle.js')).href);
setFlags();
const script = compileBundle(folder);
const { runCli } = evaluate(script, folder);
for (const options of PLANS) {
  const said = [];
  const keep = (text) => void said.push(text);
  const code = await runCli(['plan', '--model', EXAMPLE, ...options], { out: keep, err: keep });
  if (code !== 0) throw new Error(`fpdt plan ${options.join(' ')}:\n${said.join('\n')}`);
}
writeFileSync(join(folder, CODE_CACHE), script.createCachedData());
