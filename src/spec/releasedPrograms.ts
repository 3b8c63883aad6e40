/** Programs that others released, which are planned and not run: their names as policies, and what of them a user may switch. */
import * as z from 'zod';
import { FpdtError } from './errors.js';
import { isObject, type JsonObject, parseWith } from './parseJson.js';
import { POLICIES, type PolicyName } from './strategy.js';
import { textPairs } from './textPairs.js';

/** FPDT in DeepSpeed and Megatron-DeepSpeed, ALST in ArcticTraining, and UPipe (Untied Ulysses) in torchtitan. */
export const PLAN_ONLY_POLICIES = ['fpdt-released', 'alst-released', 'upipe'] as const;
export type PlanOnlyPolicy = (typeof PLAN_ONLY_POLICIES)[number];

/** What `--policy` takes. */
export const ALL_POLICIES = [...POLICIES, ...PLAN_ONLY_POLICIES] as const;
export type AnyPolicy = PolicyName | PlanOnlyPolicy;

export const ON_HOST = 'host';
/** Layer inputs kept for backward on the device or on the host; without, what autograd keeps of all layers stays on the device. */
export const CHECKPOINTS = ['none', 'device', ON_HOST] as const;

const schema = z.strictObject({
  checkpoints: z.enum(CHECKPOINTS).optional(),
  chunkedAttention: z.boolean().optional(),
  tiledLoss: z.boolean().optional(),
  tiledMlp: z.boolean().optional(),
  offloadWeights: z.boolean().optional(),
});

/** What a published ablation switches; sequence parallelism, ZeRO's stage and the optimizer's place are options of every run. */
export interface ReleasedOptions {
  readonly checkpoints: (typeof CHECKPOINTS)[number];
  /** Attention in chunks: of the sequence in FPDT, of the heads in UPipe. Off: Ulysses in the same program. */
  readonly chunkedAttention: boolean;
  /** The loss in tiles, by fused kernels, which norms, rotations and activations have then too. */
  readonly tiledLoss: boolean;
  readonly tiledMlp: boolean;
  /** The weights, too, are on the host while they are not used. */
  readonly offloadWeights: boolean;
}

export type ReleasedInput = z.infer<typeof schema>;

/** The policy that runs and is nearest to each; `auto` where there is none of that name. */
const NEAREST: Readonly<Record<PlanOnlyPolicy, string>> = { 'fpdt-released': 'fpdt', 'alst-released': 'alst', upipe: 'auto' };

export function isPlanOnly(policy: string | undefined): policy is PlanOnlyPolicy {
  return PLAN_ONLY_POLICIES.some((name) => name === policy);
}

/** What is said where one is asked to run, or to become a plan file; `what` names the request where the policy is not all of it. */
export function planOnlyError(policy: PlanOnlyPolicy, what?: string): FpdtError {
  const nearest = POLICIES.find((name) => name === NEAREST[policy]) ?? 'auto';
  const asked = what === undefined ? `policy ${policy}` : `${what}: ${policy}`;
  return new FpdtError(`${asked} is plan-only, a model of a released program without a schedule that could run`, {
    code: 'plan-only',
    hint: `use --policy ${nearest}, which runs; fpdt plan, plan --compare and max-seq take ${policy}`,
    details: { policy, runnable: nearest },
  });
}

/** Options as an object, or as text: `checkpoints=none,tiledMlp=off`. Unknown ones are refused. */
export function parseReleased(input: string | JsonObject): ReleasedInput {
  return parseWith(schema, isObject(input) ? input : fromText(input), 'run.released');
}

const SWITCHES: Readonly<Record<string, boolean>> = { on: true, true: true, off: false, false: false };

function fromText(text: string): JsonObject {
  const pairs = textPairs(text, 'run.released', 'checkpoints=host,tiledMlp=off');
  return Object.fromEntries(pairs.map(([name, value]) => [name, SWITCHES[value] ?? value]));
}
