/** How a plan that cannot be read is refused. */
import { FpdtError } from '../spec/errors.js';
import { PLAN_VERSION } from './executionPlan.js';

const PLAN_AGAIN = 'plan again with `fpdt plan`';

export function damaged(problem: string, code = 'plan-damaged'): FpdtError {
  return new FpdtError(`the plan cannot be read: ${problem}`, { code, hint: PLAN_AGAIN });
}

/** Parts that another version of fpdt wrote: `names` of what is not known here. */
export function unsupported(what: string, names: readonly string[]): FpdtError {
  return new FpdtError(`the plan has ${what} that this fpdt does not know: ${names.join(', ')}`, {
    code: 'plan-unsupported',
    hint: `use the fpdt version that wrote the plan, or ${PLAN_AGAIN}`,
    details: { names },
  });
}

export function wrongVersion(found: unknown): FpdtError {
  const older = typeof found === 'number' && found < PLAN_VERSION;
  return new FpdtError(`the plan is of version ${JSON.stringify(found) ?? 'none'}, this fpdt reads version ${PLAN_VERSION}`, {
    code: 'plan-version',
    hint: older
      ? `${PLAN_AGAIN}: the same model, cluster and run options still work`
      : `use the fpdt version that wrote the plan, or ${PLAN_AGAIN}`,
    details: { found: found ?? null, expected: PLAN_VERSION },
  });
}
