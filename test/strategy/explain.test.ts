import { describe, expect, test } from 'vitest';
import type { Strategy } from '../../src/spec/strategy.js';
import { explainChoice } from '../../src/strategy/explain/choice.js';
import { oneKnobAway } from '../../src/strategy/explain/knobs.js';
import { planRun } from '../../src/strategy/planRun.js';
import { settingOf } from '../../src/strategy/setting.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { LLAMA } from '../spec/inputs.js';

/** Of which the host cannot keep every output. */
function plan(hostBytes: string, hbmBytes = '11G'): Promise<ExecutionPlan> {
  const model = { ...LLAMA, hidden_size: 2048, num_hidden_layers: 6, num_attention_heads: 16, intermediate_size: 5632, vocab_size: 32000 };
  const cluster = { gpus: 4, gpu: 'a100-80gb', hbmBytes, hostBytes };
  return planRun({ model, cluster, run: { seqLen: '256K' }, deepspeed: { zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } } });
}

const leaves = (value: unknown, path = ''): readonly string[] =>
  typeof value === 'object' && value !== null
    ? Object.entries(value).flatMap(([key, one]) => leaves(one, `${path}.${key}`))
    : [`${path}=${String(value)}`];

function differences(a: Strategy, b: Strategy): ReadonlySet<string> {
  const [of, other] = [new Set(leaves(a)), new Set(leaves(b))];
  const changed = [...of].filter((leaf) => !other.has(leaf)).concat([...other].filter((leaf) => !of.has(leaf)));
  return new Set(changed.map((leaf) => leaf.replace(/=.*/, '').replace(/\.segments\.\d+/, '.segments')));
}

describe('why a plan has its strategy', () => {
  test('each knob changes one choice, and no two are the same', async () => {
    const { strategy, ...made } = await plan('6G');
    const knobs = oneKnobAway(settingOf(made), strategy);
    for (const { knob, strategy: other } of knobs) {
      const changed = [...differences(strategy, other)];
      // A chunk's size and its tiles of the loss follow from the number of chunks.
      if (knob === 'numChunks') expect(changed).toContain('.numChunks');
      else expect(changed, knob).toHaveLength(1);
    }
    expect(new Set(knobs.map(({ strategy: other }) => JSON.stringify(other))).size).toBe(knobs.length);
  });

  test('the next best is the fastest other that fits, and none is faster by more than the search leaves', async () => {
    const { stepSeconds, computeSeconds, nextBest, knobs } = explainChoice(await plan('6G'));
    const fitting = knobs.filter(({ fits }) => fits);
    expect(nextBest?.stepSeconds).toBe(Math.min(...fitting.map((one) => one.stepSeconds)));
    expect(stepSeconds).toBeLessThan(1.005 * (nextBest?.stepSeconds ?? 0));
    expect(computeSeconds).toBeLessThan(stepSeconds);
    expect(knobs.some(({ fits }) => !fits)).toBe(true);
  });

  test('a pool bounds it where more of it would be faster', async () => {
    const small = explainChoice(await plan('4G'));
    const host = small.pools.find(({ pool }) => pool === 'host');
    expect(host?.stepSeconds).toBeLessThan(0.95 * small.stepSeconds);
    const roomy = explainChoice(await plan('40G', '80G'));
    for (const { stepSeconds } of roomy.pools) expect(stepSeconds).toBeGreaterThan(0.99 * roomy.stepSeconds);
  });
});
