/**
 * `npm run test:pack [-- --nodes 22,24 | --core]`: the package as a user has it. Packs it, installs the tarball into an empty folder and
 * uses it there: publint and attw find nothing; plans come from the command and from a program that tsc takes in three ways, without
 * Python and without a compiler, the same ones; with the environment of FPDT_PYTHON doctor is content, two ranks train, and the
 * worker becomes a wheel. `--nodes` does the planning with other versions of Node too, which npm fetches. `--core`
 * is what `npm test` takes: no registry is asked, since the checkout's packages stand in for the installed ones, and nothing runs in Python.
 */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { resolvePython } from '../../src/bridge/python.js';
import { record } from '../../src/setup/places.js';
import { parseOptions, runScript } from '../options.js';
import { checkConsumer } from './consumer.js';
import { checkContents } from './contents.js';
import { fpdt, install, pack, packFailed, type Place, type Ran, ROOT, tool, unpack } from './place.js';
import { checkWheel } from './wheel.js';

const MODEL = join(ROOT, 'examples', 'demo', 'model', 'config.json');
const REQUEST = ['--model', MODEL, '--gpus', '2', '--gpu', 'cpu', '--seq-len', '64', '--chunks', '2'];

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { nodes: { type: 'string' }, core: { type: 'boolean', default: false } } });
  const folder = mkdtempSync(join(tmpdir(), 'fpdt-pack-'));
  try {
    const { tarball, paths } = await step('npm pack', () => pack(folder));
    await step(`${paths.length} files: workers and types, no tests`, () => Promise.resolve(checkContents(paths)));
    await step('publint', () => tool('npx', ['--no-install', 'publint', 'run', tarball, '--strict'], ROOT));
    if (!values.core) await step('attw', () => tool('npx', ['--no-install', 'attw', tarball, '--profile', 'esm-only'], ROOT));
    const place: Place = { folder: join(folder, 'user'), node: process.execPath, python: undefined };
    if (values.core) await step('unpack', () => unpack(tarball, place.folder));
    else await step('npm install TARBALL', () => install(tarball, place.folder));
    for (const node of [process.execPath, ...(await fetched(values.nodes ?? '', folder))]) await planning({ ...place, node });
    if (!values.core) await running({ ...place, python: resolvePython() });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Neither python3 nor a compiler is in the PATH of these. */
async function planning(place: Place): Promise<void> {
  const { stdout: version } = await tool(place.node, ['--version'], place.folder);
  const planned = await step(`plan, Node ${version}`, () => succeed(fpdt(place, ['plan', ...REQUEST, '--output', 'plan.json', '--json'])));
  const { digest } = JSON.parse(planned.stdout) as { readonly digest: string };
  const ofApi = await step(`a program in TypeScript, Node ${version}`, () => checkConsumer(place, MODEL));
  if (ofApi !== digest) throw packFailed('the command and the program planned differently', `${digest}\n${ofApi}`);
  await step('doctor says that Python is missing', async () => {
    const { exitCode, stdout } = await fpdt(place, ['doctor', '--json']);
    const { ok, checks } = JSON.parse(stdout) as Doctor;
    const python = checks.find(({ name }) => name === 'python');
    if (exitCode !== 1 || ok || python?.hint?.includes('npx fpdt setup') !== true) throw packFailed('doctor found Python', stdout);
    const addon = checks.find(({ name }) => name === 'native addon');
    if (addon?.status !== 'ok') throw packFailed('the addon of the tarball does not load', stdout);
  });
}

interface Doctor {
  readonly ok: boolean;
  readonly checks: readonly { readonly name: string; readonly status: string; readonly hint?: string }[];
}

async function running(place: Place & { readonly python: string }): Promise<void> {
  const environment = { FPDT_PYTHON: place.python };
  copyFileSync(join(ROOT, 'README.md'), join(place.folder, 'corpus.txt'));
  await step('doctor', () => succeed(fpdt(place, ['doctor', '--json'], environment)));
  record(dirname(dirname(place.python)), { XDG_DATA_HOME: join(place.folder, '.local', 'share') });
  const train = ['run', 'plan.json', '--data', 'corpus.txt', '--json'];
  const { stdout } = await step('two ranks train in the environment on record', () => succeed(fpdt(place, train)));
  if (!stdout.includes('"type":"step"')) throw packFailed('no step was told', stdout);
  await step('a wheel of the worker', () => checkWheel(place));
}

/** Paths of other versions of Node, from the package `node` of npm. */
async function fetched(versions: string, folder: string): Promise<readonly string[]> {
  const wanted = versions.split(',').filter((version) => version !== '');
  return await Promise.all(
    wanted.map(async (version) => {
      const args = ['--yes', '--prefer-offline', '--package', `node@${version}`, '--', 'node', '-p', 'process.execPath'];
      const { stdout } = await step(`node@${version} from npm`, () => tool('npx', args, folder));
      return stdout.trim();
    }),
  );
}

async function succeed(running: Promise<Ran>): Promise<Ran> {
  const ran = await running;
  if (ran.exitCode === 0) return ran;
  throw packFailed(`expected exit code 0, found ${ran.exitCode}`, `${ran.stdout}\n${ran.stderr}`);
}

/** Says what is done and how long it took. */
async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  try {
    return await work();
  } finally {
    console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${name}`);
  }
}

await runScript(main);
