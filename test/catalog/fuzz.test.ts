/** A core of `npm run fuzz`: configs with one thing wrong, drawn anew by a seed that is printed where it finds something. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { judge, modelOf } from '../../scripts/fuzz/judge.js';
import { mutationsOf } from '../../scripts/fuzz/mutations.js';
import { mulberry32 } from '../../src/address/layout.js';
import type { JsonObject } from '../../src/spec/parseJson.js';

const NUM_CHANGES = 150;
const SEED = Number(process.env.FPDT_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));

const small = JSON.parse(readFileSync('test/families.json', 'utf8')) as Readonly<Record<string, JsonObject>>;
const published = JSON.parse(readFileSync('scripts/compat/models.json', 'utf8')) as readonly { config: JsonObject; refused?: string }[];
const configs = [...Object.values(small), ...published.filter(({ refused }) => refused === undefined).map(({ config }) => config)];

test(`of ${NUM_CHANGES} changes each becomes a plan or an error with a hint: FPDT_FUZZ_SEED=${SEED}`, async () => {
  const random = mulberry32(SEED);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const outcomes = { planned: 0, refused: 0, defect: 0 };
  const defects: string[] = [];
  for (let i = 0; i < NUM_CHANGES; i++) {
    const config = pick(configs);
    const mutation = pick(mutationsOf(config));
    const { outcome, message } = await judge(mutation, modelOf(config));
    outcomes[outcome] += 1;
    if (outcome === 'defect') defects.push(`${String(config.model_type)}: ${mutation.at} ${mutation.what}: ${message}`);
  }
  expect(defects).toEqual([]);
  expect(Math.min(outcomes.planned, outcomes.refused)).toBeGreaterThan(10);
});

test('a misspelt key that changes the model in silence is noticed, and what is no error of the input', async () => {
  const config = small.llama as JsonObject;
  const { num_key_value_heads: _, ...without } = config;
  const silent = { at: 'num_key_value_heads', what: 'written x', without, config: { ...without, x: 2 } };
  expect(await judge(silent, modelOf(config))).toMatchObject({
    outcome: 'defect',
    message: expect.stringContaining('in silence') as string,
  });
  const broken = new Proxy(config, {
    ownKeys: () => {
      throw new RangeError('broken');
    },
  });
  expect(await judge({ at: '', what: '', config: broken }, undefined)).toMatchObject({ outcome: 'defect' });
});
