/** Which rates of a device in the catalog somebody has published for it; gpus.ts and attentionRates.ts name who. All others are assumed. */
import type { RateOrigins, Rates } from '../spec/types.js';

type Names = readonly (keyof Rates)[];

const MATMUL: Names = ['matmulFlops'];
const ATTENTION: Names = ['attentionForwardFlops', 'attentionBackwardFlops', 'attentionKernels'];
const LINK: Names = ['h2dBytes', 'd2hBytes'];
const DUPLEX: Names = ['duplexBytes'];
/** What ZeRO-Offload measured on CPUs: another node's, but of the same program. */
const OFFLOADED: Names = ['offloadedOptimizerSecondsPerParameter'];

const PUBLISHED: Readonly<Record<string, Names>> = {
  'a100-40gb': [...MATMUL, ...ATTENTION, ...LINK, ...DUPLEX, ...OFFLOADED],
  'a100-80gb': [...MATMUL, ...ATTENTION, ...LINK, ...DUPLEX, ...OFFLOADED],
  'h100-80gb': [...MATMUL, ...ATTENTION, ...LINK, ...OFFLOADED],
  'h100-nvl-94gb': [...LINK, ...OFFLOADED],
  'h200-141gb': [...MATMUL, ...ATTENTION, ...LINK, ...OFFLOADED],
  b200: [...MATMUL, ...LINK, ...OFFLOADED],
  gh200: [...MATMUL, ...ATTENTION, ...LINK, ...DUPLEX, ...OFFLOADED],
  l40s: [...LINK, ...OFFLOADED],
  'rtx-4090': [...LINK, ...OFFLOADED],
  mi300x: [...MATMUL, ...OFFLOADED],
};

export function catalogOrigins(name: string): RateOrigins {
  return Object.fromEntries((PUBLISHED[name] ?? []).map((rate) => [rate, 'published']));
}
