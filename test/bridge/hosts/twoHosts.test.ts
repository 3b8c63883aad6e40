/** `fpdt run --hostfile` on two hosts that share nothing of a network but a cable: real ranks, gloo between them. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { RunEvent } from '../../../src/bridge/events.js';
import { capture, DEMO } from '../../cli/capture.js';
import { PATIENCE_MS } from '../patience.js';
import { makeNamespaces, type Namespaces } from './namespaces.js';

const SHELL = fileURLToPath(new URL('namespaceShell.sh', import.meta.url));
const isOff = process.env['FPDT_TEST_NAMESPACES'] === 'off';
if (isOff) console.error('FPDT_TEST_NAMESPACES=off: runs on two hosts are NOT tested');

describe.skipIf(isOff)('two hosts', { timeout: PATIENCE_MS }, () => {
  let namespaces: Namespaces;
  let folder: string;
  let environment: NodeJS.ProcessEnv;
  let args: readonly string[];
  let local: readonly string[];

  beforeAll(async () => {
    namespaces = makeNamespaces();
    folder = await mkdtemp(join(tmpdir(), 'fpdt-hosts-'));
    const [plan, data, hostfile] = [join(folder, 'plan.json'), join(folder, 'text.txt'), join(folder, 'hosts')];
    writeFileSync(data, 'the quick brown fox jumps over the lazy dog. '.repeat(2000));
    writeFileSync(hostfile, namespaces.addresses.map((address) => `${address} slots=1\n`).join(''));
    expect(await capture('plan', ...DEMO, '--ranks-per-node', '1', '--steps', '2', '--output', plan)).toMatchObject({ exitCode: 0 });
    const hosts = namespaces.names.flatMap((name, host) => [`${namespaces.addresses[host]} ${name}`, `worker-${host} ${name}`]).join('\n');
    environment = { ...process.env, FPDT_TEST_HOSTS: hosts, FPDT_TEST_MARK: folder };
    local = ['run', plan, '--data', data, '--json'];
    args = [...local, '--hostfile', hostfile, '--ssh', SHELL];
  }, PATIENCE_MS);
  afterAll(async () => {
    namespaces?.remove();
    await rm(folder, { recursive: true, force: true });
  });

  /** The controller is on the first of them. */
  const onFirst = (more: readonly string[]): readonly [string, readonly string[]] => [
    'ip',
    ['netns', 'exec', namespaces.names[0], process.execPath, '--import', 'tsx', 'src/cli/main.ts', ...args, ...more],
  ];

  test('train as one does, by the hostfile of the examples', async () => {
    // Nobody knows these names but the shell.
    const [file, all] = onFirst(['--hostfile', 'examples/hostfile', '--address', namespaces.addresses[0]]);
    const { stdout } = await promisify(execFile)(file, all, { env: environment, maxBuffer: 2 ** 28 });
    const found = lossesOf(stdout);
    expect(found).toHaveLength(2);
    expect(found).toEqual(lossesOf((await capture(...local)).stdout));
  });

  test('are left by all when the controller is killed', async () => {
    const [file, all] = onFirst(['--steps', '100000']);
    const child = spawn(file, all, { env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = once(child, 'exit');
    await vi.waitUntil(() => marked(folder).filter((command) => command.includes('fpdt.worker')).length === 2, { timeout: PATIENCE_MS });
    child.kill('SIGKILL');
    await exit;
    await vi.waitUntil(() => marked(folder).length === 0, { timeout: 60_000 }).catch(() => undefined);
    expect(marked(folder)).toEqual([]);
  });

  test('a name that the shell does not know is the one error', async () => {
    const other = join(folder, 'other');
    writeFileSync(other, `${namespaces.addresses[0]} slots=1\nnowhere.invalid slots=1\n`);
    const [file, all] = onFirst(['--hostfile', other]);
    const { code, stderr } = (await promisify(execFile)(file, all, { env: environment }).catch((error: unknown) => error)) as {
      readonly code: number;
      readonly stderr: string;
    };
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /error: host nowhere\.invalid: its agent exited with code 255: ssh: could not resolve hostname nowhere\.invalid\nhint: /,
    );
  });
});

function lossesOf(stdout: string): readonly (number | null)[] {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as RunEvent).flatMap((event) => (event.type === 'step' ? [event.step.loss] : []));
}

/** Command lines of processes that were started with the mark, directly or not. */
function marked(mark: string): readonly string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const ours = pids.filter((pid) => read(`/proc/${pid}/environ`).split('\0').includes(`FPDT_TEST_MARK=${mark}`));
  return ours.map((pid) => read(`/proc/${pid}/cmdline`).replaceAll('\0', ' '));
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // It has ended.
  }
}
