/** Which attention kernel a run takes: the fastest by the cluster's rates of those that can do what its model needs. */
import { FpdtError } from '../spec/errors.js';
import type { AttentionRate, ClusterSpec, Rates, RunSpec } from '../spec/types.js';
import { ATTENTION_KERNELS, type AttentionKernel, defaultKernels, kernelNamed } from './kernels.js';

/** What a run asks of attention. */
export interface AttentionNeeds {
  readonly dtype: RunSpec['dtype'];
  readonly headDim: number;
  readonly groupedHeads: boolean;
  readonly window: boolean;
  readonly softcap: boolean;
  /** Of it every part of a sequence that is attended to by itself has a multiple of rows. */
  readonly rowTile: number;
}

type Place = Pick<ClusterSpec, 'device' | 'architecture' | 'installedKernels' | 'rates'>;

/** `asked`, or the fastest. Throws `unsupported` for one that lacks something, which the error says, with those that do not. */
export function chooseKernel(asked: string | undefined, needs: AttentionNeeds, place: Place): string {
  const able = ATTENTION_KERNELS.filter((kernel) => isThere(kernel, place) && lackOf(kernel, needs, place) === undefined);
  const lacks = asked === undefined ? undefined : lackOf(kernelNamed(asked), needs, place);
  if (asked !== undefined && lacks === undefined) return asked;
  const best = asked === undefined ? fastest(able, needs, place) : undefined;
  if (best !== undefined) return best.name;
  const name = asked ?? defaultKernels(place.device).attn;
  const others = able.toSorted((a, b) => Number(a.writesScores) - Number(b.writesScores));
  throw new FpdtError(`the attention kernel '${name}' ${lacks ?? lackOf(kernelNamed(name), needs, place)}`, {
    code: 'unsupported',
    hint: others.length === 0 ? 'no kernel does; use bfloat16 or float16 on a GPU' : `use ${others.map((one) => one.name).join(' or ')}`,
  });
}

/** What a kernel lacks, if anything. A cluster that does not say which GPUs it has is believed to have the right ones. */
export function lackOf(kernel: AttentionKernel, needs: AttentionNeeds, place: Pick<Place, 'device' | 'architecture'>): string | undefined {
  const { device, architecture } = place;
  if (!kernel.devices.includes(device) || !kernel.dtypes.includes(needs.dtype)) return `does not run ${needs.dtype} on ${device}`;
  if (architecture !== undefined && kernel.architectures?.includes(architecture) === false)
    return `runs on ${kernel.architectures.join(', ')}, not on ${architecture}`;
  if (needs.window && !kernel.window) return 'has no sliding window';
  if (needs.softcap && !kernel.softcap) return 'has no softcap of scores';
  if (needs.groupedHeads && !kernel.groupedHeads) return 'has no grouped heads';
  const { keysMultipleOf = 1 } = kernel;
  if (needs.rowTile % keysMultipleOf !== 0)
    return `is right for multiples of ${keysMultipleOf} keys, to which chunks, or documents, of this run are not padded`;
  const { multipleOf, on, but } = kernel.headDims;
  const atMost = on?.[architecture ?? ''] ?? kernel.headDims.atMost;
  if (needs.headDim % multipleOf !== 0 || needs.headDim > atMost)
    return `takes head dims that are multiples of ${multipleOf} up to ${atMost}, not ${needs.headDim}`;
  if (but?.on.includes(architecture ?? '') && needs.headDim > but.above && needs.headDim <= but.to)
    return `has no backward of head dims above ${but.above} to ${but.to} on ${architecture}`;
  return undefined;
}

/** PyTorch has it, or the cluster says that its package is installed. */
function isThere(kernel: AttentionKernel, { installedKernels = [] }: Place): boolean {
  return kernel.package === undefined || installedKernels.includes(kernel.name);
}

/** Of those with rates; else the device's own, else one that will do. */
function fastest(able: readonly AttentionKernel[], { headDim }: AttentionNeeds, { device, rates }: Place): AttentionKernel | undefined {
  const fused = able.filter(({ writesScores }) => !writesScores);
  const priced = fused.flatMap((kernel) => {
    const rate = kernelRate(kernel.name, headDim, rates);
    return rate === undefined ? [] : [{ kernel, seconds: 1 / rate.forwardFlops + BACKWARD_FLOPS / rate.backwardFlops }];
  });
  const [first, ...others] = priced;
  if (first !== undefined) return others.reduce((best, one) => (one.seconds < best.seconds ? one : best), first).kernel;
  return fused.find(({ name }) => name === defaultKernels(device).attn) ?? fused[0] ?? able[0];
}

/** Attention's backward over its forward (FlashAttention-2, which recomputes the scores). */
export const BACKWARD_FLOPS = 2.5;

/** The kernel's row with the largest head dim up to this one, else that of its smallest. */
export function kernelRate(
  kernel: string,
  headDim: number,
  { attentionKernels }: Pick<Rates, 'attentionKernels'>,
): AttentionRate | undefined {
  const rows = attentionKernels.filter((row) => row.kernel === kernel).sort((a, b) => a.headDim - b.headDim);
  return rows.findLast((row) => row.headDim <= headDim) ?? rows[0];
}
