/** A run of every model family on two ranks, and of what of a model may train, of the small configs that the worker's own tests use too. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseModel } from '../../src/catalog/index.js';
import { planRun } from '../../src/index.js';
import { type NamedPlan, SEQ_LEN, smallDeepSpeed, VOCAB_SIZE } from './setting.js';

type Config = Readonly<Record<string, unknown>>;

const CONFIGS = read<Config>('families');
const TRAININGS = read<Config & { readonly config: string }>('trainings');
const STAGES = [0, 1, 2, 3] as const;
/** Which every stage runs. */
const ALL_STAGES = ['llama frozen embedding', 'llama tied frozen', 'llama frozen first layer', 'llama lora'];
const POLICIES = ['auto', 'fpdt'] as const;

/** By name: a family, or a family and what is special about the config. */
export function familyPlans(): readonly NamedPlan[] {
  return Object.entries(CONFIGS).map(([name, config], i) => named(`family ${name}`, config, i, 3, {}));
}

/** Each on one ZeRO stage, some on all. */
export function trainingPlans(): readonly NamedPlan[] {
  return Object.entries(TRAININGS).flatMap(([name, { config, ...training }], i) => {
    const stages = ALL_STAGES.includes(name) ? STAGES : STAGES.filter((stage) => stage === i % STAGES.length);
    return stages.map((stage) => named(`training ${name}`, CONFIGS[config] ?? {}, i, stage, training));
  });
}

function named(what: string, config: Config, number: number, stage: number, training: Config): NamedPlan {
  // The outer order of `fpdt` has no windows.
  const hasWindow = parseModel(config).windows.some((window) => window !== null);
  const policy = hasWindow ? 'auto' : (POLICIES[number % 2] ?? 'auto');
  const run = { seqLen: SEQ_LEN, seed: 7, numSteps: 1, sequenceParallelSize: 2, policy, numChunks: 3 };
  return {
    name: `${what} P2 zero${stage} ${policy}`,
    key: what.replaceAll(/\W+/g, '-'),
    plan: () =>
      planRun({
        model: { ...config, vocab_size: VOCAB_SIZE },
        cluster: { gpus: 2, gpu: 'cpu' },
        deepspeed: smallDeepSpeed(stage, 1),
        run: { ...run, ...training },
      }),
  };
}

function read<T>(name: string): Readonly<Record<string, T>> {
  const path = fileURLToPath(new URL(`../../test/${name}.json`, import.meta.url));
  return JSON.parse(readFileSync(path, 'utf8')) as Readonly<Record<string, T>>;
}
