/**
 * `npm run build`: src/ to dist/. Types file by file; the library bundled, since to load some 250 files took a third of what
 * `fpdt plan` takes; the commands in one file with V8's code cache beside it (src/cli/bundle.ts).
 */
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnSync } from 'node:child_process';
import { buildSync } from 'esbuild';
import { ROOT, SHARED } from './bundling.mjs';

const DIST = join(ROOT, 'dist');
const COMMANDS = join(DIST, 'cli');
const WARM_UP = fileURLToPath(new URL('codeCache.mjs', import.meta.url));

rmSync(DIST, { recursive: true, force: true });
writeTypes();
bundleLibrary();
bundleCommands();
run([WARM_UP, COMMANDS]);

function writeTypes() {
  run([join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json']);
}

function bundleLibrary() {
  buildSync({ ...SHARED, entryPoints: ['src/index.ts'], outdir: DIST, format: 'esm' });
}

/** Those of each command run when it is chosen: esbuild keeps late imports late, and what they require with them. */
function bundleCommands() {
  const program = { entryPoints: ['src/cli/program.ts'], outfile: join(COMMANDS, 'program.cjs'), format: 'cjs' };
  // A script from a code cache has no import(): late requires instead.
  const supported = { 'dynamic-import': false };
  buildSync({ ...SHARED, ...program, define: { 'import.meta.url': 'bundleUrl' }, supported });
  const main = join(COMMANDS, 'main.js');
  buildSync({
    ...SHARED,
    entryPoints: ['src/cli/main.ts', 'src/cli/bundle.ts'],
    outdir: COMMANDS,
    format: 'esm',
    external: ['./program.js'],
  });
  // npx makes it executable once; a new build would take that away.
  chmodSync(main, 0o755);
}

function run(args) {
  const { status, error } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}
