/** `fpdt max-seq`: the longest sequence that fits, what is beyond it, and its plan. */
import { maxSeqLen } from '../strategy/limits/maxSeqLen.js';
import { type LimitOptions, printLimit } from './printLimit.js';
import { isPlanOnly } from '../spec/releasedPrograms.js';
import type { Output } from './output.js';
import { toPlanInput } from './planInput.js';
import { maxReleasedCommand } from './released.js';

export async function maxSeqCommand(options: LimitOptions, output: Output): Promise<void> {
  if (isPlanOnly(options.policy)) return maxReleasedCommand(options, output);
  printLimit(await maxSeqLen(toPlanInput(options)), options, output);
}
