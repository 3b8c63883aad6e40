/** What a person reads of checkpoints: each as it is written, and all of a run. */
import type { CheckpointResult } from '../bridge/checkpointing.js';
import { formatBytes } from '../spec/sizes.js';

export function checkpointLine({ step, folder, bytes, seconds, blockedSeconds, problem }: CheckpointResult): string {
  if (problem !== null) return `no checkpoint before step ${step}: ${problem}`;
  const time = `${seconds.toFixed(2)} s, ${blockedSeconds.toFixed(2)} s of them without training`;
  return `checkpoint before step ${step}: ${folder}, ${formatBytes(bytes)} in ${time}`;
}

/** One line, or none for a run that saved nothing. */
export function checkpointLines(all: readonly CheckpointResult[]): string[] {
  const written = all.filter(({ problem }) => problem === null);
  if (all.length === 0) return [];
  const failed = all.length === written.length ? '' : `, ${all.length - written.length} could not be written`;
  const blocked = median(written.map(({ blockedSeconds }) => blockedSeconds));
  const time = blocked === null ? '' : `; each kept the ranks from training for ${blocked.toFixed(3)} s (median)`;
  return [`${written.length} checkpoint${written.length === 1 ? '' : 's'}${failed}${time}`];
}

function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  return low === undefined || high === undefined ? null : (low + high) / 2;
}
