/** A run of every model family on two ranks, of the small configs that the worker's own tests use too. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseModel } from '../../src/catalog/index.js';
import { planRun } from '../../src/index.js';
import { type NamedPlan, SEQ_LEN, smallDeepSpeed, VOCAB_SIZE } from './setting.js';

const CONFIGS = fileURLToPath(new URL('../../test/families.json', import.meta.url));
const POLICIES = ['auto', 'fpdt'] as const;

/** By name: a family, or a family and what is special about the config. */
export function familyPlans(): readonly NamedPlan[] {
  const configs = JSON.parse(readFileSync(CONFIGS, 'utf8')) as Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  return Object.entries(configs).map(([name, config], i): NamedPlan => {
    // The outer order of `fpdt` has no windows.
    const hasWindow = parseModel(config).windows.some((window) => window !== null);
    const policy = hasWindow ? 'auto' : (POLICIES[i % 2] ?? 'auto');
    return {
      name: `family ${name} P2 ${policy}`,
      key: `family-${name.replaceAll(/\W+/g, '-')}`,
      plan: () =>
        planRun({
          model: { ...config, vocab_size: VOCAB_SIZE },
          cluster: { gpus: 2, gpu: 'cpu' },
          deepspeed: smallDeepSpeed(3, 1),
          run: { seqLen: SEQ_LEN, seed: 7, numSteps: 1, sequenceParallelSize: 2, policy, numChunks: 3 },
        }),
    };
  });
}
