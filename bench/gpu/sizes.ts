/** What bench/gpu/sizes.json says, as far as staging reads it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { FpdtError } from '../../src/index.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import type { PolicyName } from '../../src/spec/strategy.js';

export interface PlanRow {
  readonly name: string;
  readonly model: string;
  /** Of the model, where fewer than it has. */
  readonly layers?: number;
  readonly seqLen: number;
  readonly numSteps: number;
  readonly policy: PolicyName;
  readonly numChunks?: number;
  readonly segmentLayers?: number;
  /** As `run.kernels` has them. */
  readonly kernels?: string;
}

export interface DeviceSizes {
  readonly gpu: string;
  /** `zero_optimization` of the ds_config. */
  readonly zero: JsonObject;
  readonly hostBytes: string;
  readonly models: Readonly<Record<string, JsonObject>>;
  readonly plans: readonly PlanRow[];
  readonly calibration: { readonly model: string; readonly chunkTokens: number };
  readonly steps: readonly { readonly work: string; readonly sizes?: Readonly<Record<string, unknown>> }[];
}

/** Of one device. Throws `unknown-device`. */
export function sizesOf(device: string): DeviceSizes {
  const all = JSON.parse(readFileSync(fileURLToPath(new URL('sizes.json', import.meta.url)), 'utf8')) as Record<string, DeviceSizes>;
  const found = all[device];
  if (found !== undefined) return found;
  throw new FpdtError(`there are no sizes for the device '${device}'`, {
    code: 'unknown-device',
    hint: `known: ${Object.keys(all).join(', ')}`,
  });
}

/** A Hugging Face config with random weights of Llama's kind. */
export function modelOf(sizes: DeviceSizes, name: string, layers?: number): JsonObject {
  const shape = sizes.models[name];
  if (shape === undefined) throw new FpdtError(`there is no model '${name}'`, { code: 'unknown-model', hint: 'see bench/gpu/sizes.json' });
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    max_position_embeddings: 1 << 20,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    attention_dropout: 0,
    tie_word_embeddings: false,
    ...shape,
    ...(layers === undefined ? {} : { num_hidden_layers: layers }),
  };
}
