/** All inputs of a plan at once, in the order in which they need each other. */
import { type ParsedDeepSpeed, parseDeepSpeed } from '../spec/deepspeedConfig.js';
import type { JsonObject } from '../spec/parseJson.js';
import { parseRunInput, type RunInput } from '../spec/runInput.js';
import { parseRun } from '../spec/runSpec.js';
import type { ClusterSpec, ModelSpec, RunSpec } from '../spec/types.js';
import { parseCluster } from './clusters.js';
import { parseModel } from './models.js';
import { poolsOf } from './pools.js';

export interface SpecInput {
  /** A Hugging Face config.json: path or object. */
  readonly model: string | JsonObject;
  readonly cluster: string | JsonObject;
  readonly run: RunInput;
  /** A ds_config: path or object; left out, ZeRO is off. */
  readonly deepspeed?: string | JsonObject | undefined;
}

export interface Specs {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: ParsedDeepSpeed;
}

export function parseSpecs(input: SpecInput): Specs {
  const model = parseModel(input.model);
  const cluster = parseCluster(input.cluster);
  const asked = parseRunInput(input.run);
  const deepspeed = parseDeepSpeed(input.deepspeed ?? {}, { model, cluster, run: asked });
  return { model, cluster, deepspeed, run: parseRun(asked, model, cluster, deepspeed, poolsOf(cluster)) };
}
