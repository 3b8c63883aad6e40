/** The least host memory that a run fits in. */
import { parseSpecs } from '../../catalog/specs.js';
import { poolLedger } from '../../memory/ledger.js';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { memoryEstimator, type Evaluator } from '../evaluator.js';
import { type PlanInput, planFitting } from '../planRun.js';
import { type BuildInput, settingOf } from '../setting.js';
import { edge, remembered } from './edge.js';
import { type Bound, type Fitting, hopeless, probe } from './probe.js';

export interface LeastHostBytes {
  /** Of a rank; 0 where nothing of the plan is in host memory. */
  readonly hostBytes: number;
  /** Sizes that were looked at are multiples of this. */
  readonly granularityBytes: number;
  /** `hostBytes - granularityBytes` and what keeps it from a plan; null where no host memory is needed. */
  readonly less: { readonly hostBytes: number; readonly bound: Bound } | null;
}

export interface MinHost extends LeastHostBytes {
  readonly kind: 'minHost';
  readonly plan: ExecutionPlan;
}

/** More than any host has. */
const MOST_BYTES = 2 ** 50;
/** Sizes are found to a part in so many. */
const PRECISION = 256;

/**
 * Plans the run in the least pinned host memory a rank that it fits in, and says what keeps it from less. The cluster's own `hostBytes` is
 * not looked at. Throws an FpdtError where no host memory is enough.
 *
 * The answer fits, and the next smaller multiple of the granularity does not; more memory takes no strategy away, so none below that does.
 */
export async function minHost(input: PlanInput): Promise<MinHost> {
  const { deepspeed, ...specs } = parseSpecs(input);
  const asked = { ...specs, deepspeed: deepspeed.config };
  const evaluate = memoryEstimator();
  const found = leastHostBytes(asked, evaluate);
  if (found === undefined) throw hopeless('no host memory is enough', withHost(asked, MOST_BYTES));
  const { fitting, ...least } = found;
  return { kind: 'minHost', ...least, plan: planFitting(fitting.input, fitting.found.strategy) };
}

/** Without a plan of it; undefined where no host memory is enough. */
export function leastHostBytes(asked: BuildInput, evaluate: Evaluator): (LeastHostBytes & { readonly fitting: Fitting }) | undefined {
  const look = remembered((hostBytes: number) => probe(withHost(asked, hostBytes), evaluate));
  const most = look(MOST_BYTES);
  if (!most.fits) return undefined;
  const granularityBytes = granularityOf(neededBytes(most));
  // A cluster has some host memory; of a plan that needs none a byte is as good as nothing.
  const none = look(1);
  if (none.fits) return { hostBytes: 0, granularityBytes, less: null, fitting: none };
  const fits = (units: number): boolean => units > 0 && look(units * granularityBytes).fits;
  let enough = Math.ceil(neededBytes(most) / granularityBytes);
  while (!fits(enough)) enough *= 2;
  const units = edge(enough, 0, fits);
  const hostBytes = units * granularityBytes;
  const [fitting, less] = [look(hostBytes), look(Math.max(1, hostBytes - granularityBytes))];
  if (!fitting.fits || less.fits) throw new RangeError(`the search for the least host memory ended beside its edge, at ${hostBytes}`);
  return { hostBytes, granularityBytes, less: { hostBytes: hostBytes - granularityBytes, bound: less.bound }, fitting };
}

function withHost(asked: BuildInput, hostBytes: number): BuildInput {
  return { ...asked, cluster: { ...asked.cluster, hostBytes } };
}

function neededBytes({ input, found }: Fitting): number {
  const pinned = settingOf(input).pools.find(({ kind }) => kind === 'pinned');
  return pinned === undefined ? 0 : poolLedger(found.memory, pinned.name).peakBytes;
}

/** A power of two. */
function granularityOf(bytes: number): number {
  return 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, bytes) / PRECISION)));
}
