/** Finds ranks that live but do nothing: their socket thread is silent, or they stay in one phase for too long. */

import type { Body, Phase } from './protocol.js';

/** Seconds; generous, because a healthy rank may hold Python's lock for minutes. */
export interface WatchLimits {
  readonly pingSeconds: number;
  /** Without an answer to any ping. */
  readonly silentSeconds: number;
  /** From the start of the process to hello. */
  readonly startSeconds: number;
  /** Importing torch, building the model and its arenas; also writing the model or a checkpoint out. */
  readonly loadSeconds: number;
  /** One optimizer step; also one sequence of an evaluation. */
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
  /** Checks since the last sign of life. */
  numSilent: number;
  /** What it did when last asked, and checks since it began to. */
  place: string;
  numInPlace: number;
  stacksAsked: boolean;
}

/**
 * Time is counted in the watchdog's own checks, `pingSeconds` each: while this process is stopped or gets no processor, it hears nobody,
 * and no time passes.
 */
export class Watchdog {
  readonly #limits: WatchLimits;
  readonly #host: WatchHost;
  readonly #ranks: readonly Watched[];
  readonly #timer: NodeJS.Timeout;

  constructor(numRanks: number, limits: WatchLimits, host: WatchHost) {
    this.#limits = limits;
    this.#host = host;
    this.#ranks = Array.from({ length: numRanks }, () => ({ numSilent: 0, place: '', numInPlace: 0, stacksAsked: false }));
    this.#timer = setInterval(() => this.#check(), limits.pingSeconds * 1000);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Any message of a rank shows that its socket thread lives. */
  heard(rank: number): void {
    const watched = this.#ranks[rank];
    if (watched !== undefined) watched.numSilent = 0;
  }

  pong(rank: number, { phase, step, sinceUs }: Body<'pong'>): void {
    const watched = this.#ranks[rank];
    if (watched === undefined) return;
    const place = `${phase} ${step}`;
    if (place !== watched.place) Object.assign(watched, { place, numInPlace: 0, stacksAsked: false });
    const limit = limitOf(phase, this.#limits);
    if (this.#seconds(watched.numInPlace) <= limit) return;
    const since = (sinceUs / 1e6).toFixed(1);
    if (watched.stacksAsked) this.#host.hang(rank, `is in phase ${phase} for ${since} s, limit ${limit} s`);
    else this.#askStacks(rank, watched);
  }

  #check(): void {
    for (const [rank, watched] of this.#ranks.entries()) {
      const state = this.#host.stateOf(rank);
      if (state === 'gone') continue;
      watched.numSilent += 1;
      watched.numInPlace += 1;
      const silent = this.#seconds(watched.numSilent);
      if (state === 'starting') this.#checkStart(rank, silent);
      else this.#checkSilence(rank, silent);
    }
  }

  #checkStart(rank: number, waited: number): void {
    const { startSeconds } = this.#limits;
    if (waited > startSeconds) this.#host.hang(rank, `has not said hello for ${waited.toFixed(1)} s, limit ${startSeconds} s`);
  }

  #checkSilence(rank: number, silent: number): void {
    const { silentSeconds } = this.#limits;
    if (silent <= silentSeconds) this.#host.ping(rank, false);
    else this.#host.hang(rank, `answers no ping for ${silent.toFixed(1)} s, limit ${silentSeconds} s`);
  }

  /** The stacks go to the rank's stderr; the next pong then decides. */
  #askStacks(rank: number, watched: Watched): void {
    watched.stacksAsked = true;
    this.#host.ping(rank, true);
  }

  #seconds(numChecks: number): number {
    return numChecks * this.#limits.pingSeconds;
  }
}

function limitOf(phase: Phase, limits: WatchLimits): number {
  if (phase === 'loading' || phase === 'saving' || phase === 'exporting') return limits.loadSeconds;
  if (phase === 'stepping' || phase === 'evaluating') return limits.stepSeconds;
  if (phase === 'closing') return limits.closeSeconds;
  return phase === 'starting' ? limits.startSeconds : Number.POSITIVE_INFINITY;
}
