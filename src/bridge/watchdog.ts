/** Finds ranks that live but do nothing: their comms thread is silent, or they stay in one phase for too long. */

import type { Body, Phase } from './protocol.js';

/** Seconds; generous, because a healthy rank may hold Python's lock for minutes. */
export interface WatchLimits {
  readonly pingSeconds: number;
  /** Without an answer to any ping. */
  readonly silentSeconds: number;
  /** From the start of the process to hello. */
  readonly startSeconds: number;
  /** Importing torch, building the model and its arenas. */
  readonly loadSeconds: number;
  /** One optimizer step. */
  readonly stepSeconds: number;
  /** Closing the session. */
  readonly closeSeconds: number;
}
export const WATCH_LIMITS: WatchLimits = {
  pingSeconds: 5,
  silentSeconds: 300,
  startSeconds: 300,
  loadSeconds: 1800,
  stepSeconds: 3600,
  closeSeconds: 300,
};

export interface WatchHost {
  readonly ping: (rank: number, stacks: boolean) => void;
  readonly hang: (rank: number, reason: string) => void;
  /** Ranks that have said hello can be pinged; those that have said bye are not watched. */
  readonly stateOf: (rank: number) => 'starting' | 'connected' | 'gone';
}

interface Watched {
  lastHeardMs: number;
  stacksAsked: boolean;
}

export class Watchdog {
  readonly #limits: WatchLimits;
  readonly #host: WatchHost;
  readonly #ranks: Watched[];
  readonly #startedMs: number;
  readonly #timer: NodeJS.Timeout;

  constructor(numRanks: number, limits: WatchLimits, host: WatchHost) {
    this.#limits = limits;
    this.#host = host;
    this.#startedMs = performance.now();
    this.#ranks = Array.from({ length: numRanks }, () => ({ lastHeardMs: this.#startedMs, stacksAsked: false }));
    this.#timer = setInterval(() => this.#check(), limits.pingSeconds * 1000);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Any message of a rank shows that its comms thread lives. */
  heard(rank: number): void {
    const watched = this.#ranks[rank];
    if (watched !== undefined) watched.lastHeardMs = performance.now();
  }

  pong(rank: number, { phase, sinceUs }: Body<'pong'>): void {
    const watched = this.#ranks[rank];
    if (watched === undefined) return;
    const limit = limitOf(phase, this.#limits);
    if (sinceUs <= limit * 1e6) watched.stacksAsked = false;
    else if (watched.stacksAsked) this.#host.hang(rank, `is in phase ${phase} for ${toSeconds(sinceUs / 1000)}, limit ${limit} s`);
    else this.#askStacks(rank, watched);
  }

  #check(): void {
    const now = performance.now();
    for (const [rank, watched] of this.#ranks.entries()) {
      const state = this.#host.stateOf(rank);
      if (state === 'starting') this.#checkStart(rank, now);
      else if (state === 'connected') this.#checkSilence(rank, now - watched.lastHeardMs);
    }
  }

  #checkStart(rank: number, now: number): void {
    const waitedMs = now - this.#startedMs;
    if (waitedMs <= this.#limits.startSeconds * 1000) return;
    this.#host.hang(rank, `has not said hello for ${toSeconds(waitedMs)}, limit ${this.#limits.startSeconds} s`);
  }

  #checkSilence(rank: number, silentMs: number): void {
    if (silentMs <= this.#limits.silentSeconds * 1000) this.#host.ping(rank, false);
    else this.#host.hang(rank, `answers no ping for ${toSeconds(silentMs)}, limit ${this.#limits.silentSeconds} s`);
  }

  /** The stacks go to the rank's stderr; the next pong then decides. */
  #askStacks(rank: number, watched: Watched): void {
    watched.stacksAsked = true;
    this.#host.ping(rank, true);
  }
}

function limitOf(phase: Phase, limits: WatchLimits): number {
  if (phase === 'loading') return limits.loadSeconds;
  if (phase === 'stepping') return limits.stepSeconds;
  if (phase === 'closing') return limits.closeSeconds;
  return phase === 'starting' ? limits.startSeconds : Number.POSITIVE_INFINITY;
}

function toSeconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
