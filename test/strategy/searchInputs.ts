/** What the tests of the search ask for, and strategies to hold its choice against. */
import { readFileSync } from 'node:fs';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { estimator } from '../../src/strategy/evaluator.js';
import type { Strategy } from '../../src/spec/strategy.js';
import type { BuildInput, Setting } from '../../src/strategy/setting.js';
import { type Bend, specs } from '../spec/inputs.js';
import { drawStrategy } from './drawStrategy.js';

/** Layers of a width at which computing takes longer than copying, so that a choice costs what it costs in large. */
export const MODEL = {
  hidden_size: 2048,
  num_hidden_layers: 6,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  intermediate_size: 5632,
  vocab_size: 32000,
};

export function inputOf({ model = MODEL, run, cluster }: Bend): BuildInput {
  const { deepspeed, ...rest } = specs({
    model,
    cluster: { gpus: 4, gpu: 'a100-80gb', ...cluster },
    run: { seqLen: '256K', ...run },
    deepspeed: { zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } },
  });
  return { ...rest, deepspeed: deepspeed.config };
}

/** A JSON file of the project. */
export function read(path: string): unknown {
  return JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8'));
}

export type Named = Readonly<{ name: string; config: JsonObject }>;

/** Configs of models that people train. */
export const PUBLISHED = read('scripts/compat/models.json') as readonly Named[];

/** A new one in each run; a failure names it. */
export const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Strategies drawn at random, of those that fit. */
export function drawn(setting: Setting, random: () => number, count: number): readonly Strategy[] {
  const evaluate = estimator();
  const found: Strategy[] = [];
  for (let tries = 0; found.length < count && tries < 20 * count; tries++) {
    const strategy = drawStrategy(setting, random);
    if (evaluate.memory(setting, strategy).fits) found.push(strategy);
  }
  return found;
}
