import { describe, expect, it } from 'vitest';
import { planCost } from '../../src/plan/cost.js';
import { policyComparisonToText } from '../../src/report/policyTable.js';
import { ALL_POLICIES, PLAN_ONLY_POLICIES } from '../../src/spec/releasedPrograms.js';
import { POLICIES } from '../../src/spec/strategy.js';
import { comparePolicies } from '../../src/strategy/comparePolicies.js';
import { maxSeqLen } from '../../src/strategy/limits/maxSeqLen.js';
import { planRun } from '../../src/strategy/planRun.js';
import { maxReleasedSeqLen } from '../../src/strategy/released/limits.js';
import { planReleased } from '../../src/strategy/released/releasedPlan.js';
import { LLAMA, WITHOUT_ZERO } from '../spec/inputs.js';

const request = {
  model: LLAMA,
  deepspeed: WITHOUT_ZERO,
  cluster: { gpus: 2, gpu: 'cpu', hbmBytes: '8M', hostBytes: '8M' },
  run: { seqLen: 4096 },
};

describe('policies side by side', () => {
  it('have what planRun and maxSeqLen say of each alone', async () => {
    const { policies, ...rest } = await comparePolicies(request, 3);
    expect(rest).toEqual({ kind: 'policyComparison', seqLen: 4096, numRanks: 2 });
    expect(policies.map(({ policy }) => policy)).toEqual(ALL_POLICIES);
    expect(policies.map(({ planOnly }) => planOnly)).toEqual(ALL_POLICIES.map((_, i) => i >= POLICIES.length));
    expect(policies.slice(POLICIES.length).map(({ bound }) => bound?.code)).toEqual(PLAN_ONLY_POLICIES.map(() => 'unsupported'));
    expect(new Set(policies.map(({ fits }) => fits))).toEqual(new Set([true, false]));
    for (const { policy, fits, pools, step, cost, bound, longestSeqLen } of policies.slice(0, POLICIES.length)) {
      const { seqLen: _, ...run } = { ...request.run, policy };
      expect(longestSeqLen).toBe((await maxSeqLen({ ...request, run })).seqLen);
      const planned = planRun({ ...request, run: { ...request.run, policy } });
      if (fits) {
        const { memory, prediction, cluster } = await planned;
        expect(pools).toEqual(memory.pools.map(({ pool, peakBytes, capacityBytes }) => ({ pool, peakBytes, capacityBytes })));
        expect(prediction).toMatchObject(step ?? {});
        expect(cost).toEqual(planCost({ cluster, prediction }, 3));
        expect(bound).toBeNull();
      } else {
        await expect(planned).rejects.toMatchObject({ code: bound?.code, message: bound?.message });
        expect([step, cost]).toEqual([null, null]);
        expect(pools.map(({ pool }) => pool)).toEqual(['hbm', 'host']);
      }
    }
  });

  it('have what planReleased and maxReleasedSeqLen say of a released program; the policy of the request is not looked at', async () => {
    const onGpus = {
      model: LLAMA,
      cluster: { gpus: 2, gpu: 'h100-80gb', hbmBytes: '5G', hostBytes: '16M' },
      run: { seqLen: '4K', policy: 'upipe' },
    } as const;
    const { policies } = await comparePolicies(onGpus, 2);
    const released = policies.slice(POLICIES.length);
    expect(released.map(({ policy }) => policy)).toEqual(PLAN_ONLY_POLICIES);
    for (const { policy, step, cost, pools, longestSeqLen, bound } of released) {
      const plan = planReleased({ ...onGpus, run: { ...onGpus.run, policy } }, 2);
      expect(plan.prediction).toMatchObject(step ?? {});
      expect(cost).toEqual(plan.cost);
      expect(pools).toEqual(plan.memory.pools.map(({ pool, peakBytes, capacityBytes }) => ({ pool, peakBytes, capacityBytes })));
      expect(longestSeqLen).toBe(maxReleasedSeqLen({ ...onGpus, run: { policy } }).seqLen);
      expect(bound).toBeNull();
    }
  });

  it('are a table, with what keeps some of them from a plan', async () => {
    const text = policyComparisonToText(await comparePolicies(request, 3));
    expect(text).toMatch(/^4096 tokens on 2 ranks:\npolicy +fits +step +tokens\/s +MFU +HBM +host memory +\$ \/ 1B tokens +longest\n/);
    expect(text).toMatch(/^auto +yes +\S+ \w+ .* of 8 MiB .* \d+$/m);
    expect(text).toMatch(/^ulysses +no +- +- +- .* of 8 MiB .* - +\d+$/m);
    expect(text).toMatch(/^ulysses: HBM does not fit: /m);
  });

  it('no length of which fits say so', async () => {
    const { policies } = await comparePolicies({ ...request, cluster: { ...request.cluster, hbmBytes: '400K' } });
    expect(policies.map(({ fits, longestSeqLen }) => [fits, longestSeqLen])).toEqual(ALL_POLICIES.map(() => [false, null]));
  });

  it('take no price below 0', async () => {
    await expect(comparePolicies(request, -1)).rejects.toMatchObject({ code: 'invalid-value' });
  });

  it('refuse together what is wrong in all', async () => {
    await expect(comparePolicies({ ...request, cluster: { gpus: 2, gpu: 'cpus' } })).rejects.toMatchObject({ code: 'unknown-device' });
  });
});
