/** `fpdt min-host`: the least host memory that a length fits in, what needs it, and the plan in it. */
import { minHost } from '../strategy/limits/minHost.js';
import { type LimitOptions, printLimit } from './printLimit.js';
import type { Output } from './output.js';
import { toPlanInput } from './planInput.js';

export async function minHostCommand(options: LimitOptions, output: Output): Promise<void> {
  printLimit(await minHost(toPlanInput(options)), options, output);
}
