/** All inputs of a plan at once, in the order in which they need each other. */
import { FpdtError } from '../spec/errors.js';
import { readHfConfig } from '../spec/hfConfig.js';
import { changeRope, type RopeChange } from '../spec/ropeChange.js';
import { type ParsedDeepSpeed, parseDeepSpeed } from '../spec/deepspeedConfig.js';
import { parseLora } from '../spec/loraConfig.js';
import { readDeepSpeed } from '../spec/deepspeedFile.js';
import { askedOf } from '../spec/deepspeedOurs.js';
import type { JsonObject } from '../spec/parseJson.js';
import type { RunInput } from '../spec/runInput.js';
import { parseRun } from '../spec/runSpec.js';
import type { ClusterSpec, ModelSpec, RunSpec } from '../spec/types.js';
import { parseCluster } from './clusters.js';
import type { TrainingRequest } from './model/training.js';
import { parseModel } from './models.js';
import { poolsOf } from './pools.js';

export interface SpecInput {
  /** A Hugging Face config.json: path or object. */
  readonly model: string | JsonObject;
  readonly cluster: string | JsonObject;
  readonly run: RunInput;
  /** A ds_config: path, base64 or object; left out, ZeRO-3. Its section `fpdt` may have what `run` leaves out. */
  readonly deepspeed?: string | JsonObject | undefined;
}

export interface Specs {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: ParsedDeepSpeed;
}

export function parseSpecs(input: SpecInput): Specs {
  return specsByCluster(input)(input.cluster);
}

/** The specs of one request for any cluster. Throws at once for what is wrong on every one; files are read once. */
export function specsByCluster(input: Omit<SpecInput, 'cluster'>): (cluster: SpecInput['cluster']) => Specs {
  const { source, run: asked } = askedOf(readDeepSpeed(input.deepspeed), input.run);
  const lora = asked.lora === undefined ? undefined : parseLora(asked.lora);
  const model = extendedModel(input.model, asked, { freeze: asked.freeze, lora });
  return (given) => {
    const cluster = parseCluster(given);
    const deepspeed = parseDeepSpeed(source, { model, cluster, run: asked });
    return { model, cluster, deepspeed, run: parseRun(asked, model, cluster, deepspeed, poolsOf(cluster)) };
  };
}

/** The model with the rotary embedding that the run asks for, and what of it trains. */
function extendedModel(input: SpecInput['model'], change: RopeChange, training: TrainingRequest): ModelSpec {
  if (change.ropeTheta === undefined && change.ropeScaling === undefined) return parseModel(input, training);
  const model = parseModel(changeRope(readHfConfig(input).config, change), training);
  const angles = model.code.classes.flatMap(({ pre }) => pre.instructions.filter(({ op }) => op === 'angles'));
  // Those of a module are its config's; others are the family's own and fixed.
  if (angles.some(({ attributes }) => attributes.module !== undefined)) return model;
  const has = angles.length === 0 ? 'no rotary embedding' : 'a rotary embedding with a fixed base';
  throw new FpdtError(`run.ropeTheta and run.ropeScaling change nothing: ${model.family} has ${has}`, {
    code: 'unsupported',
    hint: 'leave them out',
  });
}
