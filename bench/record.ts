/**
 * `node --import tsx bench/record.ts NAME [OPTION...]`: runs a check, with more options where they are given, and writes what it
 * printed as JSON to bench/results/NAME.json, with the hardware, date, commit, versions and command that it belongs to.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { resolvePython } from '../src/bridge/python.js';

const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  parity: ['run', '--silent', 'parity', '--', '--json'],
  families: ['run', '--silent', 'parity', '--', '--families', '--json'],
  mutate: ['run', '--silent', 'mutate', '--', '--json'],
  fuzz: ['run', '--silent', 'fuzz', '--', '--json'],
  compat: ['run', '--silent', 'compat', '--', '--models', '--json'],
  planner: ['run', '--silent', 'bench:planner', '--', '--json'],
  grid: ['run', '--silent', 'bench:grid', '--', '--json'],
  accuracy: ['run', '--silent', 'bench:accuracy', '--', '--json'],
};
const FOLDER = fileURLToPath(new URL('results/', import.meta.url));
const VERSIONS = `
import importlib.metadata as m, json, sys
print(json.dumps({"python": sys.version.split()[0], **{n: m.version(n) for n in ("torch", "deepspeed", "transformers", "pyzmq", "numpy")}}))
`;

const [name = '', ...more] = process.argv.slice(2);
const command = [...(COMMANDS[name] ?? []), ...more];
if (COMMANDS[name] === undefined) throw new Error(`give one of ${Object.keys(COMMANDS).join(', ')}`);

const started = Date.now();
const { stdout, exitCode } = await execa('npm', command, { stderr: 'inherit', reject: false, buffer: true });
const seconds = Math.round((Date.now() - started) / 1000);
const { stdout: commit } = await execa('git', ['rev-parse', 'HEAD']);
const { stdout: versions } = await execa(resolvePython(), ['-c', VERSIONS]);
const document = {
  hardware: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
  date: new Date().toISOString().slice(0, 10),
  commit,
  versions: { node: process.version, ...(JSON.parse(versions) as Record<string, string>) },
  command: `npm ${command.join(' ')}`,
  seconds,
  exitCode,
  result: JSON.parse(stdout.slice(stdout.indexOf('{'))) as unknown,
};
await mkdir(FOLDER, { recursive: true });
await writeFile(`${FOLDER}${name}.json`, `${JSON.stringify(document, null, 1)}\n`);
process.exitCode = exitCode ?? 1;
