/**
 * Rounds of `npm run chaos -- --start-up`: a run is begun with 2 to 8 ranks, on this host or through agents, and its controller, or an agent, is
 * killed with SIGKILL at a random moment of its start or first steps. What was started with it, by whomever, must be gone after `patience`
 * seconds. Most ranks are echoes, which start as a rank does but load no model: it is the processes that are tried. Every fifth run is a real one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const MARK = 'FPDT_CHAOS_MARK';
const POLL_MS = 20;
const REAL_EVERY = 5;
const NUM_HOSTS = 2;
const MAX_RANKS = 8;
/** Moments are drawn up to this many times what a run takes to its first step. */
const PAST_START = 1.3;

export interface StartUpRound {
  readonly ranks: number;
  readonly worker: 'echo' | 'real';
  readonly through: 'this host' | 'agents';
  readonly target: 'controller' | 'agent';
  readonly atSeconds: number;
  /** Of the run when it was hit. */
  readonly numProcesses: number;
  readonly goneAfterSeconds: number | null;
  readonly problem: string | null;
}

export interface StartUpReport {
  readonly kind: 'chaosStartUp';
  readonly seed: number;
  readonly patienceSeconds: number;
  readonly numFailed: number;
  readonly slowestSeconds: number;
  readonly rounds: readonly StartUpRound[];
}

interface Choice {
  readonly numRanks: number;
  readonly usesAgents: boolean;
  readonly isReal: boolean;
}

export interface RealRun {
  /** Arguments of `fpdt run` for a plan of two ranks, one a host. */
  readonly args: readonly string[];
  readonly hostfile: string;
  readonly ssh: string;
}

export async function chaosOfStartUp(
  numRounds: number,
  { seed, random, patienceSeconds }: { readonly seed: number; readonly random: () => number; readonly patienceSeconds: number },
  real: RealRun,
  say: (line: string) => void,
): Promise<StartUpReport> {
  const startSeconds = new Map<string, number>();
  const rounds: StartUpRound[] = [];
  for (let number = 0; number < numRounds; number += 1) {
    const isReal = number % REAL_EVERY === REAL_EVERY - 1;
    const choice = { isReal, usesAgents: random() < 0.5, numRanks: isReal ? NUM_HOSTS : 2 + Math.floor(random() * (MAX_RANKS - 1)) };
    const kind = `${choice.isReal} ${choice.usesAgents}`;
    const known = startSeconds.get(kind) ?? (await timeToStep(choice, real));
    startSeconds.set(kind, known);
    const target = choice.usesAgents && random() < 0.3 ? 'agent' : 'controller';
    const round = await hit(choice, target, random() * PAST_START * known, patienceSeconds, real);
    rounds.push(round);
    const end = round.problem ?? `${round.numProcesses} processes, gone after ${round.goneAfterSeconds?.toFixed(2)} s`;
    say(
      `${number + 1}/${numRounds}  ${round.ranks} ${round.worker} ranks, ${round.through}, ${target} at ${round.atSeconds.toFixed(2)} s: ${end}`,
    );
  }
  const numFailed = rounds.filter(({ problem }) => problem !== null).length;
  const slowestSeconds = Math.max(0, ...rounds.map(({ goneAfterSeconds }) => goneAfterSeconds ?? patienceSeconds));
  return { kind: 'chaosStartUp', seed, patienceSeconds, numFailed, slowestSeconds, rounds };
}

async function hit(
  choice: Choice,
  target: StartUpRound['target'],
  atSeconds: number,
  patienceSeconds: number,
  real: RealRun,
): Promise<StartUpRound> {
  const victim = await Victim.start(choice, real);
  // A controller whose output nobody reads stands still once the pipe is full, and sees no agent die.
  victim.stdout.resume();
  try {
    await sleep(atSeconds * 1000);
    const numProcesses = victim.processes().length;
    const agent = target === 'agent' ? victim.processes().find((pid) => commandOf(pid).endsWith(' agent')) : undefined;
    // An agent that is not there yet cannot be hit.
    if (agent === undefined) victim.child.kill('SIGKILL');
    else process.kill(agent, 'SIGKILL');
    const goneAfterSeconds = await victim.goneWithin(patienceSeconds);
    const left = victim.processes().map((pid) => `${pid} ${commandOf(pid)}`);
    const problem = goneAfterSeconds === null ? `left after ${patienceSeconds} s: ${left.join('; ')}` : null;
    const { numRanks: ranks, isReal, usesAgents } = choice;
    const facts = { ranks, worker: isReal ? 'real' : 'echo', through: usesAgents ? 'agents' : 'this host' } as const;
    return { ...facts, target: agent === undefined ? 'controller' : 'agent', atSeconds, numProcesses, goneAfterSeconds, problem };
  } finally {
    await victim.remove();
  }
}

/** Seconds to the first step of a run that nobody hits. */
async function timeToStep(choice: Choice, real: RealRun): Promise<number> {
  const victim = await Victim.start(choice, real);
  const startedMs = performance.now();
  try {
    for await (const line of createInterface({ input: victim.stdout }))
      if (line === 'stepping' || line.startsWith('{"type":"step"')) return (performance.now() - startedMs) / 1000;
    throw new Error(`a run that nobody hits does not start: ${victim.stderr()}`);
  } finally {
    await victim.remove();
  }
}

class Victim {
  readonly child: ChildProcess;
  readonly #mark: string;
  readonly #folder: string;
  #stderr = '';

  private constructor(child: ChildProcess, mark: string, folder: string) {
    this.child = child;
    this.#mark = mark;
    this.#folder = folder;
    child.stderr?.on('data', (text: Buffer) => (this.#stderr = `${this.#stderr}${text.toString()}`.slice(-2000)));
  }

  static async start({ numRanks, usesAgents, isReal }: Choice, real: RealRun): Promise<Victim> {
    const folder = await mkdtemp(join(tmpdir(), 'fpdt-victim-'));
    const mark = `${MARK}=${randomUUID()}`;
    const echo = ['test/bridge/hosts/victim.ts', String(numRanks), String(usesAgents ? NUM_HOSTS : 0)];
    const run = ['src/cli/main.ts', 'run', ...real.args, ...(usesAgents ? ['--hostfile', real.hostfile, '--ssh', real.ssh] : []), '--json'];
    const args = isReal ? run : echo;
    const [name = '', value = ''] = mark.split('=');
    const env = { ...process.env, TMPDIR: folder, [name]: value };
    const child = spawn(process.execPath, ['--import', 'tsx', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    return new Victim(child, mark, folder);
  }

  get stdout() {
    if (this.child.stdout === null) throw new Error('a victim has no standard output');
    return this.child.stdout;
  }

  stderr(): string {
    return this.#stderr;
  }

  /** Started with it, directly or not; a zombie is none any more. */
  processes(): readonly number[] {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    return pids.filter((pid) => readOrEmpty(`/proc/${pid}/environ`).split('\0').includes(this.#mark)).map(Number);
  }

  /** Null where some are left. */
  async goneWithin(seconds: number): Promise<number | null> {
    const startedMs = performance.now();
    for (;;) {
      const passed = (performance.now() - startedMs) / 1000;
      if (this.processes().length === 0) return passed;
      if (passed > seconds) return null;
      await sleep(POLL_MS);
    }
  }

  async remove(): Promise<void> {
    const exited = this.child.exitCode === null && this.child.signalCode === null ? once(this.child, 'exit') : Promise.resolve();
    for (let pids = this.processes(); pids.length > 0; pids = this.processes()) {
      for (const pid of pids) killIfThere(pid);
      await sleep(POLL_MS);
    }
    await exited;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

function commandOf(pid: number): string {
  return readOrEmpty(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // It has ended.
  }
}
