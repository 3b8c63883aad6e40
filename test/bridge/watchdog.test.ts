import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Watchdog, type WatchHost, type WatchLimits } from '../../src/bridge/watchdog.js';

const LIMITS: WatchLimits = { pingSeconds: 1, silentSeconds: 3, startSeconds: 5, loadSeconds: 10, stepSeconds: 4, closeSeconds: 2 };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function watch(state: ReturnType<WatchHost['stateOf']>) {
  const host = { ping: vi.fn<WatchHost['ping']>(), hang: vi.fn<WatchHost['hang']>(), stateOf: () => state };
  return { host, dog: new Watchdog(1, LIMITS, host) };
}

/** A healthy socket thread answers every ping at once. */
function answer({ host, dog }: ReturnType<typeof watch>, phase: 'stepping' | 'waiting' | 'loading', step: number | null = null) {
  host.ping.mockImplementation((rank) => {
    dog.heard(rank);
    dog.pong(rank, { phase, step, sinceUs: 7_000_000 });
  });
}

describe('a rank hangs', () => {
  test('when it answers no ping', () => {
    const { host } = watch('connected');
    vi.advanceTimersByTime(3000);
    expect(host.hang).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1000);
    expect(host.hang).toHaveBeenCalledWith(0, 'answers no ping for 4.0 s, limit 3 s');
  });

  test('when it never says hello', () => {
    const { host } = watch('starting');
    vi.advanceTimersByTime(6000);
    expect(host.hang).toHaveBeenCalledExactlyOnceWith(0, 'has not said hello for 6.0 s, limit 5 s');
  });

  test('when it stays in a step, after its stacks were asked for', () => {
    const watched = watch('connected');
    answer(watched, 'stepping', 0);
    vi.advanceTimersByTime(5000);
    expect(watched.host.hang).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1000);
    expect(watched.host.ping).toHaveBeenCalledWith(0, true);
    expect(watched.host.hang).toHaveBeenCalledWith(0, 'is in phase stepping for 7.0 s, limit 4 s');
  });
});

describe('a rank does not hang', () => {
  test('while it waits, or goes from step to step', () => {
    const waiting = watch('connected');
    answer(waiting, 'waiting');
    const stepping = watch('connected');
    for (let step = 0; step < 100; step += 1) {
      answer(stepping, 'stepping', step);
      vi.advanceTimersByTime(3000);
    }
    expect(waiting.host.hang).not.toHaveBeenCalled();
    expect(stepping.host.hang).not.toHaveBeenCalled();
  });

  test('because clocks went on while this process was stopped: its timer then fires once', () => {
    const { host } = watch('connected');
    vi.advanceTimersByTime(2000);
    vi.spyOn(performance, 'now').mockReturnValue(10_000_000);
    vi.spyOn(Date, 'now').mockReturnValue(10_000_000);
    vi.advanceTimersByTime(1000);
    expect(host.hang).not.toHaveBeenCalled();
  });

  test('when it is gone', () => {
    const { host } = watch('gone');
    vi.advanceTimersByTime(100_000);
    expect(host.hang).not.toHaveBeenCalled();
    expect(host.ping).not.toHaveBeenCalled();
  });
});
