/** A rank of another host, as its agent tells of it. */

import { type LogStream, type RankExit, type RankProcess, TAIL_LINES } from '../ranks.js';

export class RemoteRank implements RankProcess {
  readonly rank: number;
  readonly node: number;
  readonly host: string;
  readonly exited: Promise<RankExit>;
  readonly closed: Promise<void>;
  pid: number | undefined = undefined;
  isStarted = false;
  readonly #tail: string[] = [];
  #exit: RankExit | null = null;
  #settle: (exit: RankExit) => void = () => undefined;
  #settleClosed: () => void = () => undefined;

  constructor(rank: number, node: number, host: string) {
    this.rank = rank;
    this.node = node;
    this.host = host;
    this.exited = new Promise((resolve) => (this.#settle = resolve));
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
  }

  start(pid: number | null): void {
    this.pid = pid ?? undefined;
    this.isStarted = true;
  }

  hear(stream: LogStream, line: string): void {
    if (stream === 'stderr' && this.#tail.push(line) > TAIL_LINES) this.#tail.shift();
  }

  end({ code, signal, startError }: RankExit): void {
    this.#exit ??= { code, signal, startError };
    this.#settle(this.#exit);
  }

  close(): void {
    this.#settleClosed();
  }

  /** Nothing more will be heard of it. */
  giveUp(): void {
    this.end({ code: null, signal: null, startError: 'its host is gone' });
    this.close();
  }

  exit(): RankExit | null {
    return this.#exit;
  }

  stderrTail(): string {
    return this.#tail.join('\n');
  }
}
