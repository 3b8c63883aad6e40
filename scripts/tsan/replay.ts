/** The copy engine in a program of its own, built with ThreadSanitizer, and plans as it replays them: test/native/copiesMain.cc. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { PYTHON_FOLDER, resolvePython } from '../../src/bridge/python.js';
import { FpdtError } from '../../src/index.js';

/** `exact`: a wait orders what it names and nothing else; `threads`: the CPU twin itself. */
export type ReplayDevice = 'exact' | 'threads';

export interface Replayed {
  readonly calls: number;
  readonly copies: number;
  readonly batches: number;
  readonly bytes: number;
  /** Reports of ThreadSanitizer; the first one's text. */
  readonly numRaces: number;
  readonly firstRace?: string;
}

const NATIVE = fileURLToPath(new URL('../../native/cuda/', import.meta.url));
const MAIN = fileURLToPath(new URL('../../test/native/copiesMain.cc', import.meta.url));
const SOURCES = ['copy_engine.cc', 'copy_program.cc', 'counters.cc', 'thread_device.cc'];
const FLAGS = ['-std=c++17', '-O1', '-g1', '-Wall', '-Wextra', '-Werror', '-pthread', '-fsanitize=thread'];
const RACE = 'WARNING: ThreadSanitizer';

/** Returns the path of the program. Throws FpdtError `no-compiler` where it cannot be built. */
export async function buildReplay(folder: string): Promise<string> {
  const program = join(folder, 'copiesMain');
  const compiler = process.env['CXX'] ?? 'g++';
  const sources = [MAIN, ...SOURCES.map((name) => join(NATIVE, name))];
  const { failed, stderr, shortMessage } = await execa(compiler, [...FLAGS, ...sources, '-o', program], { reject: false });
  if (!failed) return program;
  const first =
    String(stderr)
      .split('\n')
      .find((line) => line.includes('error')) ?? shortMessage;
  throw new FpdtError(`${compiler} could not build the replay with ThreadSanitizer: ${first}`, {
    code: 'no-compiler',
    hint: 'install g++ with its sanitizers (libtsan), or set CXX',
  });
}

/** What the program reads. `withoutWait`: the wait of a copy that is left out, by its number; undefined where there are fewer. */
export async function replayText(plan: string, withoutWait?: number): Promise<string | undefined> {
  const args = withoutWait === undefined ? [] : ['--without-wait', `${withoutWait}`];
  const env = { PYTHONPATH: PYTHON_FOLDER, OMP_NUM_THREADS: '1' };
  const { exitCode, stdout, stderr } = await execa(resolvePython(), ['-m', 'fpdt.testing.copy_replay', plan, ...args], {
    env,
    reject: false,
  });
  if (exitCode === 0) return stdout;
  if (exitCode === NO_SUCH_WAIT) return undefined;
  throw new Error(`the plan cannot be replayed:\n${stderr}`);
}

/** See python/fpdt/testing/copy_replay.py. */
const NO_SUCH_WAIT = 3;

/** Throws for a replay that fails for another reason than a race. */
export async function runReplay(program: string, text: string, device: ReplayDevice, seed: number): Promise<Replayed> {
  const env = { TSAN_OPTIONS: 'halt_on_error=0 exitcode=0 history_size=7' };
  const { exitCode, stdout, stderr } = await execa(program, [device, `${seed}`], { input: text, env, reject: false });
  if (exitCode !== 0) throw new Error(`the replay on ${device} failed:\n${stderr}`);
  const numRaces = stderr.split(RACE).length - 1;
  return { ...(JSON.parse(stdout) as Omit<Replayed, 'numRaces'>), numRaces, ...(numRaces > 0 ? { firstRace: firstReport(stderr) } : {}) };
}

function firstReport(text: string): string {
  const start = text.indexOf(RACE);
  return text.slice(start, start + 1500);
}
