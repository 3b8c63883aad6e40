/** Calls of long sections replayed by the native addon, where it was built. */
import { loadNativeAddon, type StartedReplay } from '../native.js';
import type { ReplayColumns, ReplayedColumns, Replays } from '../verify/replayColumns.js';

export const nativeReplays: Replays = {
  leastOps: 1000,
  start: (columns, signal) => {
    const loaded = loadNativeAddon();
    return 'addon' in loaded ? resultOf(loaded.addon.startReplay(columns), signal) : undefined;
  },
};

/** The same at once, on this thread; undefined where there is no addon. */
export function replayNow(columns: ReplayColumns): ReplayedColumns | undefined {
  const loaded = loadNativeAddon();
  return 'addon' in loaded ? (loaded.addon.replayCall(columns) as ReplayedColumns) : undefined;
}

async function resultOf({ result, cancel }: StartedReplay, signal: AbortSignal | undefined): Promise<ReplayedColumns> {
  if (signal?.aborted === true) cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return (await result) as ReplayedColumns;
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}
