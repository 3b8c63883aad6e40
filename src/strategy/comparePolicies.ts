/** All policies side by side for one request. */
import { parseSpecs } from '../catalog/specs.js';
import { checkPrice, type PlanCost, planCost } from '../plan/cost.js';
import type { MemoryLedger } from '../memory/ledger.js';
import type { Prediction } from '../predict/prediction.js';
import { type AnyPolicy, PLAN_ONLY_POLICIES, type PlanOnlyPolicy } from '../spec/releasedPrograms.js';
import { POLICIES, type PolicyName } from '../spec/strategy.js';
import { type Bound, probe, refused } from './limits/probe.js';
import { longestSeqLen } from './limits/maxSeqLen.js';
import { memoryEstimator } from './evaluator.js';
import { type PlanInput, planFitting } from './planRun.js';
import { releasedProbe } from './released/limits.js';
import { planSetting } from './released/releasedPlan.js';

/** Bytes of a rank. */
export interface PoolUse {
  readonly pool: string;
  readonly peakBytes: number;
  readonly capacityBytes: number;
}

export type PolicyStep = Pick<Prediction, 'stepSeconds' | 'tokensPerSecond' | 'mfu'>;

export interface PolicyRow {
  readonly policy: AnyPolicy;
  /** A model of a released program, which cannot be run. */
  readonly planOnly: boolean;
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
  /** In the order of the policies' names in help, those that run first. */
  readonly policies: readonly PolicyRow[];
}

/** The policy of the request is not looked at. Throws an FpdtError for what is wrong in every policy. */
export async function comparePolicies(input: PlanInput, usdPerGpuHour?: number): Promise<PolicyComparison> {
  if (usdPerGpuHour !== undefined) checkPrice(usdPerGpuHour);
  const { policy: _, ...open } = input.run;
  const { run, cluster } = parseSpecs({ ...input, run: open });
  const as = <T extends AnyPolicy>(policy: T): PlanInput => ({ ...input, run: { ...open, policy } });
  const policies = [
    ...POLICIES.map((policy) => rowOf(as(policy), policy, usdPerGpuHour)),
    ...PLAN_ONLY_POLICIES.map((policy) => releasedRow(as(policy), policy, usdPerGpuHour)),
  ];
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
    return { policy, planOnly: false, fits: false, pools, step: null, cost: null, bound: looked.bound, longestSeqLen: longest };
  }
  const plan = planFitting(asked, looked.found.strategy);
  const { stepSeconds, tokensPerSecond, mfu } = plan.prediction;
  return {
    policy,
    planOnly: false,
    fits: true,
    pools: poolUses(plan.memory),
    step: { stepSeconds, tokensPerSecond, mfu },
    cost: planCost(plan, usdPerGpuHour),
    bound: null,
    longestSeqLen: longest,
  };
}

/** What is wrong in one program alone is in its row. */
function releasedRow(input: PlanInput, policy: PlanOnlyPolicy, usdPerGpuHour: number | undefined): PolicyRow {
  const nothing = { policy, planOnly: true, fits: false, step: null, cost: null } as const;
  try {
    const { setting, memory, bound, longestSeqLen: longest } = releasedProbe(input);
    const shared = { pools: poolUses(memory), longestSeqLen: longest };
    if (bound !== null) return { ...nothing, ...shared, bound };
    const { prediction, cost } = planSetting(setting, usdPerGpuHour);
    const { stepSeconds, tokensPerSecond, mfu } = prediction;
    return { ...nothing, ...shared, fits: true, step: { stepSeconds, tokensPerSecond, mfu }, cost, bound: null };
  } catch (error) {
    return { ...nothing, pools: [], bound: refused(error).bound, longestSeqLen: null };
  }
}

function poolUses({ pools }: MemoryLedger): readonly PoolUse[] {
  return pools.map(({ pool, peakBytes, capacityBytes }) => ({ pool, peakBytes, capacityBytes }));
}
