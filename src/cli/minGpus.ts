/** `fpdt min-gpus`: the fewest GPUs that a length fits on, why fewer do not do, and the plan on them. */
import { minGpus } from '../strategy/limits/minGpus.js';
import { type LimitOptions, printLimit } from './printLimit.js';
import type { Output } from './output.js';
import { toPlanInput } from './planInput.js';

export async function minGpusCommand(options: LimitOptions & { readonly maxGpus?: number }, output: Output): Promise<void> {
  printLimit(await minGpus({ ...toPlanInput(options, ['gpu']), maxGpus: options.maxGpus }), options, output);
}
