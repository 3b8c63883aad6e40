/** The plan of a released program in a screenful: does it fit, what fills memory when, and what a step's time is made of. */
import { poolLabel } from '../catalog/pools.js';
import { costLine, poolLines } from '../plan/summary.js';
import { type PlanOnlyPolicy, planOnlyError, type ReleasedOptions } from '../spec/releasedPrograms.js';
import { formatSeconds } from '../spec/sizes.js';
import type { MaxReleasedSeqLen } from '../strategy/released/limits.js';
import { PROGRAMS } from '../strategy/released/programs.js';
import type { ReleasedPlan } from '../strategy/released/releasedPlan.js';

export function releasedToText(plan: ReleasedPlan, usdPerGpuHour?: number): string {
  const { memory, prediction, cluster } = plan;
  const { stepSeconds, tokensPerSecond, mfu, terms } = prediction;
  const width = Math.max(...terms.map(({ name }) => name.length));
  const share = (part: number): string => `${(100 * part).toFixed(1)}%`;
  return [
    ...headLines(plan),
    ...memory.pools.flatMap((pool) => ['', ...poolLines(pool)]),
    '',
    `Step        ${formatSeconds(stepSeconds)} predicted, ${tokensPerSecond.toPrecision(4)} tokens/s (rates ${cluster.ratesProvenance}: ${cluster.ratesSource})`,
    ...terms.map(
      ({ name, seconds, note }) =>
        `  ${name.padEnd(width)} ${formatSeconds(seconds).padStart(10)}  ${share(seconds / stepSeconds).padStart(6)}  ${note}`,
    ),
    `MFU         ${share(mfu.causalModel)} causal model FLOPs; ${share(mfu.causalHardware)} causal with recompute; ${share(mfu.fullModel)} full attention; ${share(mfu.fullHardware)} full with recompute`,
    costLine(plan, usdPerGpuHour),
  ].join('\n');
}

export function maxReleasedToText(
  { seqLen, granularityTokens, nextSeqLen, bound, plan }: MaxReleasedSeqLen,
  usdPerGpuHour?: number,
): string {
  return [
    `Longest     ${seqLen} tokens fit (multiples of ${granularityTokens} were looked at)`,
    `Bound       ${nextSeqLen} tokens: ${bound.message}`,
    '',
    releasedToText(plan, usdPerGpuHour),
  ].join('\n');
}

function headLines({
  policy,
  fits,
  family,
  numModelParameters,
  cluster,
  run,
  options,
  kernel,
  memory,
  remarks,
}: ReleasedPlan): readonly string[] {
  const full = memory.pools.map(({ pool, peakBytes, capacityBytes, peakInstant, instants }) => {
    const changes = instants.some(({ totalBytes }) => totalBytes !== peakBytes);
    return `${poolLabel(pool)} ${((100 * peakBytes) / capacityBytes).toFixed(0)}% full${changes ? ` at ${peakInstant}` : ''}`;
  });
  const { hint } = planOnlyError(policy);
  const sharding = PROGRAMS[policy].facts.sharding === 'ZeRO' ? `ZeRO-${run.zeroStage}` : PROGRAMS[policy].facts.sharding;
  return [
    `Fits        ${fits ? 'yes' : 'no'}: ${full.join(', ')}`,
    `Plan-only   ${policy}, a model of a released program without a schedule: ${hint ?? ''}`,
    `Model       ${family}, ${numModelParameters} parameters, ${run.dtype}`,
    `Cluster     ${cluster.name}: ${cluster.numRanks} ranks, sequence parallel ${run.sequenceParallelSize} x data parallel ${run.dataParallelSize}, ${sharding}`,
    `Sequence    ${run.seqLen} tokens${run.paddedSeqLen === run.seqLen ? '' : `, padded to ${run.paddedSeqLen}`}`,
    `Program     ${optionTexts(policy, options).join(', ')}; attention by ${kernel}`,
    ...remarks.map((text) => `Remark      ${text}`),
  ];
}

function optionTexts(policy: PlanOnlyPolicy, options: ReleasedOptions): readonly string[] {
  const switches = Object.keys(PROGRAMS[policy].facts.defaults);
  return Object.entries(options)
    .filter(([name]) => switches.includes(name))
    .map(([name, value]) => `${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : value}`);
}
