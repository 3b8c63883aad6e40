/** The architecture, held by reading the sources: imports go one way, planning is pure, planning loads no worker library. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SOURCES = fileURLToPath(new URL('../../src/', import.meta.url));
/** A folder imports itself and those before it. */
const ORDER = ['spec', 'catalog', 'memory', 'chunk', 'schedule', 'plan', 'bridge', 'telemetry', 'report', 'cli'];
const PLANNER = ['spec', 'catalog', 'memory', 'chunk', 'schedule', 'plan'];
/** The only planner files that touch the world outside: they read specs and read or write plan files. */
const MAY_READ_FILES = ['spec/parseJson.ts', 'plan/file.ts'];
/** Pure functions of their arguments; and classes that do not matter to purity. */
const PURE_MODULES = ['node:crypto', 'zod'];
const RUN_ONLY = ['zeromq', 'execa', 'pythonia'];

interface Import {
  readonly target: string;
  readonly isTypeOnly: boolean;
}

const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .sort();
const importsOf = new Map(files.map((file) => [file, readImports(file)]));

/** Static imports and exports; dynamic imports are how `cli` loads commands late. Paths become relative to src/. */
function readImports(file: string): readonly Import[] {
  const text = readFileSync(join(SOURCES, file), 'utf8');
  const statements = text.matchAll(/^(?:import|export)\s+(type\s+)?(?:[^'"]*?\sfrom\s+)?'([^']+)';/gms);
  return [...statements].map(([, type, target = '']) => ({ target: resolveTarget(file, target), isTypeOnly: type !== undefined }));
}

function resolveTarget(file: string, target: string): string {
  if (!target.startsWith('.')) return target;
  return relative(SOURCES, join(SOURCES, dirname(file), target)).replace(/\.js$/, '.ts');
}

function folderOf(file: string): string {
  return file.includes('/') ? (file.split('/')[0] ?? '') : '';
}

function ownImports(file: string): readonly Import[] {
  return (importsOf.get(file) ?? []).filter(({ target }) => importsOf.has(target));
}

describe('architecture', () => {
  it('reads imports from every source file', () => {
    expect(files.length).toBeGreaterThan(30);
    expect(ownImports('cli/plan.ts').map(({ target }) => target)).toContain('plan/planRun.ts');
  });

  it('has only known folders', () => {
    expect([...new Set(files.map(folderOf))].filter((folder) => folder !== '' && !ORDER.includes(folder))).toEqual([]);
  });

  it('imports one way: spec -> catalog -> memory -> chunk -> schedule -> plan -> bridge -> telemetry -> report -> cli', () => {
    const wrong = files.flatMap((file) =>
      ownImports(file)
        .filter(({ target }) => !mayImport(file, target))
        .map(({ target }) => `${file} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  it('imports what exists', () => {
    const broken = files.flatMap((file) =>
      (importsOf.get(file) ?? [])
        .filter(({ target }) => target.endsWith('.ts') && !importsOf.has(target))
        .map(({ target }) => `${file}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  it('has no import cycle, types aside', () => {
    expect(files.flatMap((file) => findCycle(file) ?? [])).toEqual([]);
  });

  it('plans without files, clock, randomness or environment', () => {
    const planner = files.filter((file) => PLANNER.includes(folderOf(file)) && !MAY_READ_FILES.includes(file));
    const impure = planner.flatMap((file) => [
      ...(importsOf.get(file) ?? [])
        .filter(({ target, isTypeOnly }) => !isTypeOnly && !importsOf.has(target) && !PURE_MODULES.includes(target))
        .map(({ target }) => `${file} imports ${target}`),
      ...IMPURE.filter((pattern) => pattern.test(withoutComments(file))).map((pattern) => `${file} has ${pattern}`),
    ]);
    expect(impure).toEqual([]);
  });

  it('plans without loading what only a run needs', () => {
    const loaded = reachable('cli/plan.ts').flatMap((file) => (importsOf.get(file) ?? []).map(({ target }) => target));
    expect(loaded.filter((target) => RUN_ONLY.includes(target))).toEqual([]);
    const ran = reachable('cli/run.ts').flatMap((file) => (importsOf.get(file) ?? []).map(({ target }) => target));
    expect(ran).toContain('zeromq');
  });

  it('keeps files under 300 lines', () => {
    expect(files.filter((file) => readFileSync(join(SOURCES, file), 'utf8').split('\n').length > 301)).toEqual([]);
  });
});

const IMPURE = [/\bDate\.now\b/, /\bnew Date\b/, /\bMath\.random\b/, /\bprocess\.env\b/, /\bperformance\.now\b/, /\brandomUUID\b/];

/** index.ts is on top of all but cli; native.ts is a leaf that plan may use, and itself uses only its twin. */
function mayImport(file: string, target: string): boolean {
  if (file === 'index.ts') return folderOf(target) !== 'cli';
  if (file === 'native.ts') return folderOf(target) === 'plan';
  if (target === 'native.ts') return ['plan', 'cli'].includes(folderOf(file));
  if (target === 'index.ts') return folderOf(file) === 'cli';
  return ORDER.indexOf(folderOf(target)) <= ORDER.indexOf(folderOf(file));
}

function withoutComments(file: string): string {
  return readFileSync(join(SOURCES, file), 'utf8').replace(/\/\*.*?\*\/|\/\/[^\n]*/gs, '');
}

function valueImports(file: string): readonly string[] {
  return ownImports(file)
    .filter(({ isTypeOnly }) => !isTypeOnly)
    .map(({ target }) => target);
}

function reachable(start: string): readonly string[] {
  const seen = new Set([start]);
  for (const file of seen) for (const target of valueImports(file)) seen.add(target);
  return [...seen];
}

/** The shortest way from a file back to itself, if there is one. */
function findCycle(start: string): string | undefined {
  const paths = new Map<string, string>(valueImports(start).map((target) => [target, `${start} -> ${target}`]));
  for (const [file, path] of paths) {
    if (file === start) return path;
    for (const target of valueImports(file)) if (!paths.has(target)) paths.set(target, `${path} -> ${target}`);
  }
  return undefined;
}
