/** A plan in a screenful of plain text: does it fit, what fills memory when, and what a step is predicted to cost. */
import type { MemoryInstant, MemoryItem, PoolLedger } from '../memory/ledger.js';
import type { SectionPrediction } from '../schedule/simulate.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ExecutionPlan } from './executionPlan.js';

const NUM_LARGEST_ITEMS = 5;

/** Lines without colour or trailing newline. */
export function planSummary(plan: ExecutionPlan): string {
  return [
    ...headLines(plan),
    '',
    ...poolLines(plan.memory.hbm, 'HBM per rank'),
    '',
    ...poolLines(plan.memory.host, 'Pinned host memory per rank'),
    '',
    ...timeLines(plan),
    '',
    `Digest      ${plan.digest}`,
  ].join('\n');
}

function headLines({ model, cluster, run, strategy, schedule, memory }: ExecutionPlan): readonly string[] {
  const numOps = Object.values(schedule).reduce((sum, section) => sum + section.ops.length, 0);
  const padding = run.paddedSeqLen === run.seqLen ? '' : `, padded to ${run.paddedSeqLen}`;
  return [
    `Fits        ${memory.fits ? 'yes' : 'no'}: HBM ${percent(memory.hbm)} full at ${memory.hbm.peakInstant}, pinned host ${percent(memory.host)} full at ${memory.host.peakInstant}`,
    `Model       ${model.family}, ${model.numLayers} layers of ${model.hiddenSize}, ${model.numHeads} heads (${model.numKvHeads} kv), ${run.dtype}`,
    `Cluster     ${cluster.name}: ${cluster.numRanks} ranks, sequence parallel ${run.sequenceParallelSize} x data parallel ${run.dataParallelSize}, ZeRO-${run.zeroStage}`,
    `Sequence    ${run.seqLen} tokens${padding}; ${strategy.numChunks} chunks of ${strategy.chunkTokens} (${strategy.localChunkTokens} per rank), ${strategy.numLossTiles} loss tiles a chunk`,
    `Rotary      fp32 angles by absolute position, as Hugging Face forms them: off by up to ${rotaryError(run.seqLen).toPrecision(2)} rad at the last token`,
    `Strategy    ${strategy.policy}: k, v in ${strategy.keyValues}; attention output ${keptOrNot(strategy.attentionOutput)}; layer inputs in ${strategy.checkpoints}, every ${ordinal(strategy.segmentLayers)}; backward ${strategy.backwardOrder}; prefetch depth ${strategy.prefetchDepth}`,
    `Ops         ${numOps} in ${Object.keys(schedule).length} sections`,
  ];
}

/** Half a unit in the last place of position * frequency in fp32: 0.03 rad at 1M tokens, 0.5 at 15M. */
function rotaryError(seqLen: number): number {
  return 2 ** (Math.floor(Math.log2(Math.max(1, seqLen - 1))) - 24);
}

function keptOrNot(home: 'hbm' | 'host' | 'recompute'): string {
  return home === 'recompute' ? 'recomputed' : `saved in ${home}`;
}

function ordinal(layers: number): string {
  return layers === 1 ? 'layer' : `${layers} layers`;
}

function poolLines(pool: PoolLedger, title: string): readonly string[] {
  const peak = pool.instants.find(({ name }) => name === pool.peakInstant);
  const items = [...pool.persistent, ...(peak?.items ?? [])].filter(({ bytes }) => bytes > 0).sort((a, b) => b.bytes - a.bytes);
  const width = Math.max(...pool.instants.map(({ name }) => name.length), ...items.map(({ name }) => name.length));
  return [
    `${title}: ${formatBytes(pool.peakBytes)} of ${formatBytes(pool.capacityBytes)} at ${pool.peakInstant}${pool.fits ? '' : `, ${formatBytes(pool.peakBytes - pool.capacityBytes)} too much`}`,
    ...pool.instants.map((instant) => instantLine(instant, width, pool.peakInstant)),
    ...(items.length === 0 ? [] : [`  largest at ${pool.peakInstant}:`]),
    ...items.slice(0, NUM_LARGEST_ITEMS).map((item) => itemLine(item, width)),
  ];
}

function instantLine({ name, totalBytes }: MemoryInstant, width: number, peak: string): string {
  return `  ${name.padEnd(width)}  ${formatBytes(totalBytes).padStart(10)}${name === peak ? '  <- peak' : ''}`;
}

function itemLine({ name, bytes, provenance, note }: MemoryItem, width: number): string {
  return `    ${name.padEnd(width)}  ${formatBytes(bytes).padStart(10)}  ${provenance}: ${note}`;
}

function timeLines({ prediction, cluster }: ExecutionPlan): readonly string[] {
  const { stepSeconds, tokensPerSecond, exposedCopySeconds, copiedBytes, mfu, sections } = prediction;
  const share = (value: number): string => `${(100 * value).toFixed(1)}%`;
  const fixed = cluster.rates.stepOverheadSeconds;
  return [
    `Step        ${formatSeconds(stepSeconds)} predicted, ${tokensPerSecond.toPrecision(4)} tokens/s (rates ${cluster.ratesProvenance}: ${cluster.ratesSource})`,
    ...sections.map((section) => sectionLine(section, stepSeconds)),
    ...(fixed > 0
      ? [`  ${'outside the ops'.padEnd(20)} ${formatSeconds(fixed).padStart(10)}  ${share(fixed / stepSeconds).padStart(6)}`]
      : []),
    `Copies      ${formatBytes(copiedBytes.h2d)} host to HBM, ${formatBytes(copiedBytes.d2h)} HBM to host a step and rank; ${formatSeconds(exposedCopySeconds)} exposed (${share(exposedCopySeconds / stepSeconds)})`,
    `MFU         ${share(mfu.causalModel)} causal model FLOPs; ${share(mfu.causalHardware)} causal with recompute; ${share(mfu.fullModel)} full attention; ${share(mfu.fullHardware)} full with recompute`,
  ];
}

function sectionLine({ name, runs, makespanSeconds, exposedCopySeconds }: SectionPrediction, stepSeconds: number): string {
  const total = runs * makespanSeconds;
  const exposed = exposedCopySeconds > 0 ? `, ${formatSeconds(exposedCopySeconds)} of it exposed copies` : '';
  return `  ${name.padEnd(20)} ${formatSeconds(total).padStart(10)}  ${(100 * (total / stepSeconds)).toFixed(1).padStart(5)}%  ${runs} x ${formatSeconds(makespanSeconds)}${exposed}`;
}

function percent({ peakBytes, capacityBytes }: PoolLedger): string {
  return `${((100 * peakBytes) / capacityBytes).toFixed(0)}%`;
}
