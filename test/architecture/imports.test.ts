/** The architecture, held by reading the sources: imports go one way, planning is pure, planning loads no worker library. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SOURCES = fileURLToPath(new URL('../../src/', import.meta.url));
/** The planner's rooms; every one imports itself and those before it. */
const PLANNER = ['spec', 'catalog', 'memory', 'schedule', 'address', 'predict', 'verify', 'plan', 'strategy'];
const ROOMS = [...PLANNER, 'machine', 'setup', 'bridge', 'telemetry', 'report', 'cli'];
/** The only planner files that touch the world outside: they read specs and read or write plan files. */
const MAY_READ_FILES = ['spec/jsonFile.ts', 'plan/file.ts', 'plan/wholeFile.ts'];
/** Pure functions of their arguments; and classes that do not matter to purity. */
const PURE_MODULES = ['node:crypto', 'node:zlib', 'zod'];
const RUN_ONLY = ['zeromq', 'execa', 'pythonia'];
/** Who asks the native addon, and who says whether it is there. */
const NATIVE_ROOMS = ['machine', 'setup', 'cli'];

/** `late`: import() of a module when a command needs it; `type`: gone once compiled. */
interface Import {
  readonly target: string;
  readonly when: 'load' | 'late' | 'type';
}

const all = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).sort();
const files = all.filter((name) => name.endsWith('.ts'));
/** Data is imported like a source, and imports nothing. */
const data = all.filter((name) => name.endsWith('.json'));
const importsOf = new Map<string, readonly Import[]>([
  ...files.map((file) => [file, readImports(file)] as const),
  ...data.map((file) => [file, []] as const),
]);

/** Imports and exports from other files, those of types among them. Paths become relative to src/. */
function readImports(file: string): readonly Import[] {
  const text = readFileSync(join(SOURCES, file), 'utf8');
  const statements = text.matchAll(/^(?:import|export)\s+(type\s+)?(?:[^'"]*?\sfrom\s+)?'([^']+)'(?:\s+with\s+\{[^}]*\})?;/gms);
  const calls = text.matchAll(/\b(typeof\s+|await\s+)?import\('([^']+)'\)/g);
  return [
    ...[...statements].map(
      ([, type, target = '']) => ({ target: resolveTarget(file, target), when: type === undefined ? 'load' : 'type' }) as const,
    ),
    ...[...calls].map(
      ([, word, target = '']) => ({ target: resolveTarget(file, target), when: word?.startsWith('await') ? 'late' : 'type' }) as const,
    ),
  ];
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
    expect(ownImports('index.ts').map(({ target }) => target)).toContain('spec/errors.ts');
    expect(ownImports('catalog/families/index.ts')).toContainEqual({ target: 'catalog/families/llama.json', when: 'load' });
    expect(ownImports('plan/executionPlan.ts')).toContainEqual({ target: 'spec/strategy.ts', when: 'type' });
    expect(files.flatMap((file) => ownImports(file)).some(({ when }) => when === 'late')).toBe(true);
  });

  it('has only known folders', () => {
    expect([...new Set(files.map(folderOf))].filter((folder) => folder !== '' && !ROOMS.includes(folder))).toEqual([]);
  });

  it(`imports one way, types included: ${ROOMS.join(' -> ')}`, () => {
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
        .filter(({ target }) => /\.(ts|json)$/.test(target) && !importsOf.has(target))
        .map(({ target }) => `${file}: ${target}`),
    );
    expect(broken).toEqual([]);
  });

  it('has no import cycle, types included', () => {
    expect(files.flatMap((file) => findCycle(file) ?? [])).toEqual([]);
  });

  it('imports late only where commands are chosen', () => {
    const late = files.filter((file) => ownImports(file).some(({ when }) => when === 'late'));
    expect(late.filter((file) => folderOf(file) !== 'cli')).toEqual([]);
  });

  it('plans without files, clock, randomness or environment', () => {
    const planner = files.filter((file) => PLANNER.includes(folderOf(file)) && !MAY_READ_FILES.includes(file));
    const impure = planner.flatMap((file) => [
      ...(importsOf.get(file) ?? [])
        .filter(({ target, when }) => when !== 'type' && !importsOf.has(target) && !PURE_MODULES.includes(target))
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
    expect(
      [...files, ...data].filter((file) => !GENERATED.includes(file) && readFileSync(join(SOURCES, file), 'utf8').split('\n').length > 301),
    ).toEqual([]);
  });
});

/** By scripts/deepspeed/table.py. */
const GENERATED = ['spec/deepspeedTable.json'];
const IMPURE = [/\bDate\.now\b/, /\bnew Date\b/, /\bMath\.random\b/, /\bprocess\./, /\bperformance\.now\b/, /\brandomUUID\b/];

/** index.ts is on top of all but cli; native.ts and package.ts are below all rooms; planning knows of neither. */
function mayImport(file: string, target: string): boolean {
  if (file === 'index.ts') return folderOf(target) !== 'cli';
  if (target === 'index.ts') return folderOf(file) === 'cli';
  if (target === 'package.ts') return !PLANNER.includes(folderOf(file));
  if (file === 'native.ts') return false;
  if (target === 'native.ts') return NATIVE_ROOMS.includes(folderOf(file));
  return ROOMS.indexOf(folderOf(target)) <= ROOMS.indexOf(folderOf(file));
}

function withoutComments(file: string): string {
  return readFileSync(join(SOURCES, file), 'utf8').replace(/\/\*.*?\*\/|\/\/[^\n]*/gs, '');
}

/** What is loaded before a file's first line runs. */
function reachable(start: string): readonly string[] {
  const seen = new Set([start]);
  for (const file of seen) for (const { target, when } of ownImports(file)) if (when === 'load') seen.add(target);
  return [...seen];
}

/** The shortest way from a file back to itself, if there is one. */
function findCycle(start: string): string | undefined {
  const next = (file: string): readonly string[] => ownImports(file).flatMap(({ target, when }) => (when === 'late' ? [] : [target]));
  const paths = new Map<string, string>(next(start).map((target) => [target, `${start} -> ${target}`]));
  for (const [file, path] of paths) {
    if (file === start) return path;
    for (const target of next(file)) if (!paths.has(target)) paths.set(target, `${path} -> ${target}`);
  }
  return undefined;
}
