/**
 * `npm run build`: src/ to dist/. Types file by file; the code bundled, since to load some 250 files took a third of what
 * `fpdt plan` takes. A command's own code stays in files of its own, loaded when it runs.
 */
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnSync } from 'node:child_process';
import { buildSync } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const DIST = join(ROOT, 'dist');
/** zod is bundled, without the languages that it brings. */
const BUNDLED = ['zod'];

rmSync(DIST, { recursive: true, force: true });
writeTypes();
bundle();

function writeTypes() {
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, error } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: ROOT, stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

function bundle() {
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const command = join('cli', 'main');
  buildSync({
    absWorkingDir: ROOT,
    entryPoints: { index: 'src/index.ts', [command]: 'src/cli/main.ts' },
    outdir: DIST,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    sourcemap: true,
    external: Object.keys(dependencies).filter((name) => !BUNDLED.includes(name)),
    logLevel: 'warning',
  });
  // npx makes it executable once; a new build would take that away.
  chmodSync(join(DIST, `${command}.js`), 0o755);
}
