/** What is in the tarball, by path. */
import { packFailed } from './place.js';

const NEEDED = [
  'dist/index.js',
  'dist/index.d.ts',
  'dist/cli/main.js',
  'dist/cli/program.cjs',
  `native/prebuilt/${process.platform}-${process.arch}/fpdt.node`,
  'native/build.mjs',
  'python/fpdt/worker.py',
  'python/pyproject.toml',
  'python/requirements.txt',
  'schemas/cli/error.json',
  'README.md',
  'LICENSE',
];

/** Tests and their tools, caches, sources and builds of this checkout, settings of its owner. */
const UNWANTED = [
  /(^|\/)tests?\//,
  /\.test\./,
  /conftest\.py$/,
  /__pycache__|\.pyc$/,
  /^(src|scripts|bench|native\/build)\//,
  /^python\/fpdt\/testing\/(?!__init__|debug|faults)/,
  /(^|\/)\./,
  /\.map$/,
];

export function checkContents(paths: readonly string[]): void {
  const missing = NEEDED.filter((path) => !paths.includes(path));
  const unwanted = paths.filter((path) => UNWANTED.some((pattern) => pattern.test(path)));
  if (missing.length + unwanted.length === 0) return;
  throw packFailed(`the tarball lacks [${missing.join(', ')}] and has [${unwanted.join(', ')}]`, 'see "files" in package.json');
}
