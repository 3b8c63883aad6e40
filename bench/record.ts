/**
 * `node --import tsx bench/record.ts NAME [OPTION...]`: runs a check, with more options where they are given, and writes what it
 * printed as JSON to bench/results/NAME.json, with the hardware, date, commit, versions and command that it belongs to.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { runScript } from '../scripts/options.js';
import { resolvePython } from '../src/bridge/python.js';
import { FpdtError } from '../src/index.js';

const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  parity: ['run', '--silent', 'parity', '--', '--json'],
  threads: ['run', '--silent', 'parity', '--', '--device', 'threads', '--json'],
  tsan: ['run', '--silent', 'test:tsan', '--', '--json'],
  fused: ['run', '--silent', 'bench:fused', '--', '--json'],
  copies: ['run', '--silent', 'bench:copies', '--', '--json'],
  families: ['run', '--silent', 'parity', '--', '--families', '--json'],
  resume: ['run', '--silent', 'parity:resume', '--', '--json'],
  mutate: ['run', '--silent', 'mutate', '--', '--json'],
  device: ['run', '--silent', 'mutate', '--', '--device', '--json'],
  fuzz: ['run', '--silent', 'fuzz', '--', '--json'],
  chaos: ['run', '--silent', 'chaos', '--', '--rounds', '30', '--json'],
  starts: ['run', '--silent', 'chaos', '--', '--start-up', '--rounds', '200', '--json'],
  compat: ['run', '--silent', 'compat', '--', '--models', '--json'],
  configs: ['run', '--silent', 'compat', '--', '--json'],
  planner: ['run', '--silent', 'bench:planner', '--', '--json'],
  grid: ['run', '--silent', 'bench:grid', '--', '--json'],
  heads: ['run', '--silent', 'bench:heads', '--', '--json'],
  accuracy: ['run', '--silent', 'bench:accuracy', '--', '--json'],
  packing: ['run', '--silent', 'bench:packing', '--', '--json'],
  training: ['run', '--silent', 'bench:training', '--', '--json'],
};
const FOLDER = fileURLToPath(new URL('results/', import.meta.url));
const VERSIONS = `
import importlib.metadata as m, json, sys
print(json.dumps({"python": sys.version.split()[0], **{n: m.version(n) for n in ("torch", "deepspeed", "transformers", "pyzmq", "numpy")}}))
`;

async function main(): Promise<void> {
  const [name = '', ...more] = process.argv.slice(2);
  const known = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (known === undefined) {
    throw new FpdtError(`expected the name of a check, found ${name === '' ? 'nothing' : `'${name}'`}`, {
      code: 'usage',
      hint: `give one of ${Object.keys(COMMANDS).join(', ')}`,
    });
  }
  const command = [...known, ...more];
  const started = Date.now();
  const { stdout, exitCode = 1 } = await execa('npm', command, { stderr: 'inherit', reject: false, buffer: true });
  const seconds = Math.round((Date.now() - started) / 1000);
  const document = { ...(await setting()), command: `npm ${command.join(' ')}`, seconds, exitCode, result: resultOf(stdout, name) };
  await mkdir(FOLDER, { recursive: true });
  await writeFile(`${FOLDER}${name}.json`, `${JSON.stringify(document, null, 1)}\n`);
  process.exitCode = exitCode;
}

async function setting(): Promise<Readonly<Record<string, unknown>>> {
  const { stdout: commit } = await execa('git', ['rev-parse', 'HEAD']);
  const { stdout: versions } = await execa(resolvePython(), ['-c', VERSIONS]);
  return {
    hardware: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    date: new Date().toISOString().slice(0, 10),
    commit,
    versions: { node: process.version, ...(JSON.parse(versions) as Record<string, string>) },
  };
}

/** What npm prints before it is no part of it. */
function resultOf(stdout: string, name: string): unknown {
  const start = stdout.indexOf('{');
  if (start >= 0) return JSON.parse(stdout.slice(start));
  throw new FpdtError(`${name} printed no result`, { code: 'no-result', hint: 'its own error is above; nothing was recorded' });
}

await runScript(main);
