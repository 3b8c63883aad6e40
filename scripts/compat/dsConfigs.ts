/**
 * What becomes of the ds_configs in test/fixtures/dsConfigs, which are written in the styles of the programs that people take theirs from:
 * a plan with DeepSpeed's own effective values, or an error. The values are those of DeepSpeed's config object in the same run, once
 * transformers' integration has filled "auto".
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseSpecs, type SpecInput } from '../../src/catalog/index.js';
import { FpdtError } from '../../src/spec/errors.js';
import { DEEPSPEED } from '../../src/spec/deepspeedTable.js';
import { isObject, type JsonObject, valueIn } from '../../src/spec/parseJson.js';
import { planRun } from '../../src/strategy/planRun.js';
import { deepspeedSays } from '../deepspeed/deepspeedSays.js';

const FOLDER = fileURLToPath(new URL('../../test/fixtures/dsConfigs/', import.meta.url));
const MODEL = fileURLToPath(new URL('../../examples/llama-3-8b.json', import.meta.url));
/** Room for the states of any ZeRO stage in fp32: configs are judged, not sizes. */
const CLUSTER = { gpus: 8, gpu: 'h100-80gb', hbmBytes: '2T', hostBytes: '4T' };
const NUM_STEPS = 100;

/** Configs that ask for what is refused by name, or for what only DeepSpeed's engine refuses, and the key that says so. */
export const REFUSED: Readonly<Record<string, string>> = {
  'examples-autotp': 'tensor_parallel',
  'examples-bert-onebit': 'optimizer.type',
  'examples-chat-hybrid': 'hybrid_engine.enabled',
  'examples-compression': 'compression_training',
  'examples-deepcompile': 'compile.deepcompile',
  'examples-elastic': 'elasticity',
  'examples-pipeline': 'pipeline',
  'examples-zeropp': 'zero_optimization.zero_quantized_weights',
  'megatron-curriculum': 'curriculum_learning',
  'megatron-moe': 'expert_parallel',
  'wrong-optimizer-params': 'optimizer.params.momentum',
  'wrong-scheduler': 'scheduler.type',
};

export interface ConfigVerdict {
  readonly name: string;
  readonly verdict: 'plans' | 'refused' | 'refused by DeepSpeed too';
  readonly remarks: readonly string[];
  readonly message?: string;
  readonly hint?: string | undefined;
  /** DeepSpeed's own error. */
  readonly deepspeedError?: string;
  /** Paths whose value is not DeepSpeed's, with both. */
  readonly differs: readonly string[];
  /** Whether it is as it should be: planned with DeepSpeed's values, or refused for what is refused by name, or by both. */
  readonly ok: boolean;
}

/** `plans`: whether to plan each, beyond reading it. */
export async function judgeConfigs({
  only = '',
  plans,
}: {
  readonly only?: string;
  readonly plans: boolean;
}): Promise<readonly ConfigVerdict[]> {
  const names = readdirSync(FOLDER).filter((file) => file.endsWith('.json') && file.includes(only));
  const ours = await Promise.all(names.map((file) => readOne(`${FOLDER}${file}`, plans)));
  const asked = ours.map(({ found }, i) => ({
    text: readFileSync(`${FOLDER}${names[i]}`, 'utf8'),
    fill: true,
    replicas: found?.replicas ?? CLUSTER.gpus,
    hiddenSize: 4096,
    numSteps: NUM_STEPS,
    dtype: found?.effective.dtype ?? 'bfloat16',
  }));
  const theirs = (await deepspeedSays('configs', asked)) as readonly JsonObject[];
  return ours.map((one, i) => verdictOf((names[i] ?? '').replace('.json', ''), one, theirs[i] ?? {}));
}

interface Ours {
  readonly found?: { readonly effective: JsonObject; readonly replicas: number; readonly remarks: readonly string[] };
  readonly error?: FpdtError;
}

async function readOne(deepspeed: string, plans: boolean): Promise<Ours> {
  const input: SpecInput = { model: MODEL, cluster: CLUSTER, run: { seqLen: '64K', numSteps: NUM_STEPS, policy: 'fpdt' }, deepspeed };
  try {
    const { deepspeed: parsed, run } = parseSpecs(input);
    if (plans) await planRun(input);
    const remarks = (valueIn(parsed.config, ['fpdt', 'remarks']) ?? []) as readonly string[];
    return { found: { effective: effectiveOf(parsed.config, run), replicas: run.dataParallelSize, remarks } };
  } catch (error) {
    if (error instanceof FpdtError) return { error };
    throw error;
  }
}

type Run = ReturnType<typeof parseSpecs>['run'];

/** By the names of scripts/deepspeed/configs.py. */
function effectiveOf(config: JsonObject, run: Run): JsonObject {
  const at = (path: string): unknown => valueIn(config, path.split('.')) ?? null;
  return {
    stage: run.zeroStage,
    dtype: run.dtype,
    gradientClipping: at('gradient_clipping'),
    sequencesPerStep: run.gradientAccumulationSteps * run.dataParallelSize,
    sequencesPerReplica: run.gradientAccumulationSteps,
    communicationDtype: at('communication_data_type'),
    gradAccumDtype: at('data_types.grad_accum_dtype'),
    lossScale: run.dtype === 'float16' ? (at('fp16.loss_scale') ?? 0) : null,
    scheduler: at('scheduler.type'),
    schedulerParams: at('scheduler.params'),
    zero: zeroOf(at('zero_optimization') as JsonObject, run.zeroStage),
  };
}

/** Every field of DeepSpeed's model, by its own name. */
function zeroOf(zero: JsonObject, stage: number): JsonObject {
  const rows = Object.entries(DEEPSPEED.keys.zero_optimization?.keys ?? {});
  const fields = rows.map(([name, { alias = name, default: value = null }]) => [name, zero[alias] ?? value] as const);
  return { ...Object.fromEntries(fields), overlap_comm: zero.overlap_comm ?? stage === 3 };
}

function verdictOf(name: string, { found, error }: Ours, theirs: JsonObject): ConfigVerdict {
  const deepspeedError = theirs.error as string | undefined;
  if (found === undefined) {
    const { message: told = '', hint } = error ?? {};
    // What is recorded is the same on every machine.
    const message = told.replaceAll(FOLDER, '');
    const isKnown = deepspeedError !== undefined || (REFUSED[name] !== undefined && message.includes(REFUSED[name]));
    const verdict = deepspeedError === undefined ? 'refused' : 'refused by DeepSpeed too';
    return {
      name,
      verdict,
      remarks: [],
      message,
      hint,
      differs: [],
      ok: isKnown,
      ...(deepspeedError === undefined ? {} : { deepspeedError }),
    };
  }
  const differs = deepspeedError === undefined ? differences(found.effective, theirs) : [`DeepSpeed: ${deepspeedError}`];
  return { name, verdict: 'plans', remarks: found.remarks, differs, ok: differs.length === 0 && REFUSED[name] === undefined };
}

/** Old names, which DeepSpeed's model has emptied into new ones, and sections that are filled with defaults. */
const NOT_COMPARED = /^zero\.(?:cpu_offload\w*|stage3_gather_fp16\w*|leaf_module)/;

function differences(ours: JsonObject, theirs: JsonObject, at = ''): readonly string[] {
  return Object.entries(ours).flatMap(([key, value]) => {
    const path = at === '' ? key : `${at}.${key}`;
    const other = theirs[key] ?? null;
    if (NOT_COMPARED.test(path)) return [];
    if (isObject(value) && isObject(other)) return differences(value, other, path);
    return JSON.stringify(value) === JSON.stringify(other) ? [] : [`${path}: ${JSON.stringify(value)}, DeepSpeed ${JSON.stringify(other)}`];
  });
}
