/** All policies side by side for one request. */
import { parseSpecs } from '../catalog/specs.js';
import { checkPrice, type PlanCost, planCost } from '../plan/cost.js';
import type { MemoryLedger } from '../memory/ledger.js';
import type { Prediction } from '../predict/prediction.js';
import { POLICIES, type PolicyName } from '../spec/strategy.js';
import { type Bound, probe } from './limits/probe.js';
import { longestSeqLen } from './limits/maxSeqLen.js';
import { memoryEstimator } from './evaluator.js';
import { type PlanInput, planFitting } from './planRun.js';

/** Bytes of a rank. */
export interface PoolUse {
  readonly pool: string;
  readonly peakBytes: number;
  readonly capacityBytes: number;
}

export type PolicyStep = Pick<Prediction, 'stepSeconds' | 'tokensPerSecond' | 'mfu'>;

export interface PolicyRow {
  readonly policy: PolicyName;
  readonly fits: boolean;
  /** Of its plan, or of its strategy that misses by least; none where it is not memory that is missing. */
  readonly pools: readonly PoolUse[];
  /** Null where it has no plan, as the cost. */
  readonly step: PolicyStep | null;
  readonly cost: PlanCost | null;
  /** What keeps it from a plan; null where it has one. */
  readonly bound: Bound | null;
  /** The longest sequence that fits in this policy, on the same ranks; null where none does. See maxSeqLen. */
  readonly longestSeqLen: number | null;
}

export interface PolicyComparison {
  readonly kind: 'policyComparison';
  readonly seqLen: number;
  readonly numRanks: number;
  /** In the order of the policies' names in help. */
  readonly policies: readonly PolicyRow[];
}

/** The policy of the request is not looked at. Throws an FpdtError for what is wrong in every policy. */
export async function comparePolicies(input: PlanInput, usdPerGpuHour?: number): Promise<PolicyComparison> {
  if (usdPerGpuHour !== undefined) checkPrice(usdPerGpuHour);
  const { run, cluster } = parseSpecs(input);
  const policies = POLICIES.map((policy) => rowOf({ ...input, run: { ...input.run, policy } }, policy, usdPerGpuHour));
  return { kind: 'policyComparison', seqLen: run.seqLen, numRanks: cluster.numRanks, policies };
}

function rowOf(input: PlanInput, policy: PolicyName, usdPerGpuHour: number | undefined): PolicyRow {
  const { deepspeed, ...specs } = parseSpecs(input);
  const asked = { ...specs, deepspeed: deepspeed.config };
  const evaluate = memoryEstimator();
  const longest = longestSeqLen(asked, evaluate)?.seqLen ?? null;
  const looked = probe(asked, evaluate);
  if (!looked.fits) {
    const pools = looked.memory === undefined ? [] : poolUses(looked.memory);
    return { policy, fits: false, pools, step: null, cost: null, bound: looked.bound, longestSeqLen: longest };
  }
  const plan = planFitting(asked, looked.found.strategy);
  const { stepSeconds, tokensPerSecond, mfu } = plan.prediction;
  return {
    policy,
    fits: true,
    pools: poolUses(plan.memory),
    step: { stepSeconds, tokensPerSecond, mfu },
    cost: planCost(plan, usdPerGpuHour),
    bound: null,
    longestSeqLen: longest,
  };
}

function poolUses({ pools }: MemoryLedger): readonly PoolUse[] {
  return pools.map(({ pool, peakBytes, capacityBytes }) => ({ pool, peakBytes, capacityBytes }));
}
