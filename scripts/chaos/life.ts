/** One `fpdt run` as a process of its own, its events, and what of it can be killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { RunEvent } from '../../src/bridge/events.js';

export interface Ended {
  readonly exitCode: number | null;
  /** By step; of one that was lost and run again, the last. */
  readonly losses: ReadonlyMap<number, number | null>;
  readonly numRestarts: number;
  /** Of all ranks that it ever had. */
  readonly pids: readonly number[];
  readonly seconds: number;
  readonly stderr: string;
}

export class Life {
  readonly pids: number[] = [];
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #startedMs = performance.now();
  readonly #losses = new Map<number, number | null>();
  #numRestarts = 0;
  #stderr = '';

  constructor(args: readonly string[]) {
    this.#child = spawn(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', 'run', ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stderr?.on('data', (text: Buffer) => (this.#stderr += text.toString()));
    this.ended = this.#follow();
  }

  killController(): void {
    this.#child.kill('SIGKILL');
  }

  /** Of those of the ranks' present life; false where there is none yet, or it is gone by itself. */
  killRank(number: number, numRanks: number): boolean {
    const pid = this.pids.slice(-numRanks)[number];
    if (pid === undefined) return false;
    try {
      return process.kill(pid, 'SIGKILL');
    } catch {
      return false;
    }
  }

  async #follow(): Promise<Ended> {
    const exit = once(this.#child, 'exit') as Promise<[number | null]>;
    const { stdout } = this.#child;
    if (stdout === null) throw new Error('the run has no standard output');
    for await (const line of createInterface({ input: stdout })) this.#hear(line);
    const [exitCode] = await exit;
    const seconds = (performance.now() - this.#startedMs) / 1000;
    return { exitCode, losses: this.#losses, numRestarts: this.#numRestarts, pids: this.pids, seconds, stderr: this.#stderr };
  }

  #hear(line: string): void {
    // The last line of a controller that was killed may be cut.
    if (!line.endsWith('}')) return;
    const event = JSON.parse(line) as RunEvent;
    if (event.type === 'step') this.#losses.set(event.step.step, event.step.loss);
    if (event.type === 'restart') this.#numRestarts += 1;
    const pid = event.type === 'rank' && event.state === 'started' ? /pid (\d+)/.exec(event.detail)?.[1] : undefined;
    if (pid !== undefined) this.pids.push(Number(pid));
  }
}
