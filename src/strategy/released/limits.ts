/** The longest sequence that a released program fits. */
import type { SpecInput } from '../../catalog/specs.js';
import type { MemoryLedger } from '../../memory/ledger.js';
import { explainMisfit, misfitPools } from '../../memory/misfit.js';
import { FpdtError } from '../../spec/errors.js';
import type { RunInput } from '../../spec/runInput.js';
import { edge } from '../limits/edge.js';
import { type Bound, refused } from '../limits/probe.js';
import { refusePositionsPastTable } from '../positions.js';
import { PROGRAMS } from './programs.js';
import { planSetting, type ReleasedPlan, settingOf } from './releasedPlan.js';
import { type ReleasedSetting, withTokens } from './setting.js';

export interface MaxReleasedSeqLen {
  readonly kind: 'maxReleasedSeqLen';
  readonly seqLen: number;
  /** Lengths that were looked at are multiples of this. */
  readonly granularityTokens: number;
  /** `seqLen + granularityTokens`, and what keeps it from fitting. */
  readonly nextSeqLen: number;
  readonly bound: Bound;
  readonly plan: ReleasedPlan;
}

/** A request without its length. */
export interface MaxReleasedInput extends Omit<SpecInput, 'run'> {
  readonly run: Omit<RunInput, 'seqLen'>;
}

export interface ReleasedProbe {
  readonly setting: ReleasedSetting;
  readonly memory: MemoryLedger;
  /** Null where it fits. */
  readonly bound: Bound | null;
  readonly longestSeqLen: number | null;
}

/** No longer sequence is looked at. */
const MOST_TOKENS = 2 ** 36;
/** Of a rank: the granularity of the answer, or less where it is short. */
const MOST_LOCAL_GRANULARITY = 512;
const PRECISION = 64;

/** Throws `does-not-fit` where no length does. The length of the request is not looked at. */
export function maxReleasedSeqLen(input: MaxReleasedInput, usdPerGpuHour?: number): MaxReleasedSeqLen {
  if (Object.hasOwn(input.run, 'seqLen')) {
    throw new FpdtError('run.seqLen is given, but it is what is looked for', { code: 'unknown-key', hint: 'leave run.seqLen out' });
  }
  const setting = settingOf({ ...input, run: { ...input.run, seqLen: MOST_TOKENS } });
  const longest = longestOf(setting);
  if (longest === null) throw nothingFits(setting);
  const [seqLen, granularityTokens] = longest;
  const nextSeqLen = seqLen + granularityTokens;
  const bound = boundAt(setting, nextSeqLen);
  if (bound === null) throw new RangeError(`the search for the longest sequence ended beside its edge, at ${seqLen}`);
  const plan = planSetting(withTokens(setting, seqLen), usdPerGpuHour);
  return { kind: 'maxReleasedSeqLen', seqLen, granularityTokens, nextSeqLen, bound, plan };
}

function nothingFits(setting: ReleasedSetting): FpdtError {
  const { message, code, details } = explainMisfit(memoryOf(withTokens(setting, setting.run.sequenceParallelSize)));
  const hint = 'take more GPUs, which share the states of the model, or GPUs with more memory';
  return new FpdtError(`no length fits: ${message}`, { code, hint, details });
}

/** Whether a request fits, and the longest one like it. */
export function releasedProbe(input: SpecInput): ReleasedProbe {
  const setting = settingOf(input);
  return {
    setting,
    memory: memoryOf(setting),
    bound: boundAt(setting, setting.run.seqLen),
    longestSeqLen: longestOf(setting)?.[0] ?? null,
  };
}

/** With the granularity that it is a multiple of. */
function longestOf(setting: ReleasedSetting): readonly [seqLen: number, granularityTokens: number] | null {
  const ranks = setting.run.sequenceParallelSize;
  const fits = (tokens: number): boolean => boundAt(setting, tokens) === null;
  if (!fits(ranks)) return null;
  let start = ranks;
  while (fits(2 * start)) start *= 2;
  let granularity = ranks;
  while (2 * granularity <= Math.min(start / PRECISION, ranks * MOST_LOCAL_GRANULARITY)) granularity *= 2;
  const units = edge(start / granularity, (2 * start) / granularity, (count) => fits(count * granularity));
  return [units * granularity, granularity];
}

/** What keeps a length from fitting; null where nothing does. */
function boundAt(setting: ReleasedSetting, tokens: number): Bound | null {
  if (tokens > MOST_TOKENS)
    return refused(new FpdtError(`sequences of more than ${MOST_TOKENS} tokens are not looked at`, { code: 'too-long' })).bound;
  const asked = withTokens(setting, tokens);
  try {
    refusePositionsPastTable(asked.model, asked.run);
  } catch (error) {
    return refused(error).bound;
  }
  const memory = memoryOf(asked);
  if (memory.fits) return null;
  const { code, message } = explainMisfit(memory);
  return { code, message, pools: misfitPools(memory) };
}

function memoryOf(setting: ReleasedSetting): MemoryLedger {
  return PROGRAMS[setting.policy].memory(setting);
}
