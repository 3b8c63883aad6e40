/** Context extension: a run with another rotary base or scaling than its model's config has. The changed config is the run's. */
import { FpdtError } from './errors.js';
import { isObject, type JsonObject } from './parseJson.js';

export interface RopeChange {
  readonly ropeTheta?: number | undefined;
  /** `yarn:8`: type and factor. */
  readonly ropeScaling?: string | undefined;
}

interface Scaling {
  readonly type: string;
  readonly factor: number;
}

/** What transformers' types need beside a factor and the length that was trained; as Llama 3.1 has them. */
const MORE: Readonly<Record<string, JsonObject>> = { linear: {}, yarn: {}, llama3: { low_freq_factor: 1, high_freq_factor: 4 } };

/**
 * The config with both in the place where it keeps its own, and `max_position_embeddings` as many times as long as before. Where
 * kinds of layers have rotary embeddings of their own, those of full attention change: the others look back a window.
 */
export function changeRope(config: JsonObject, { ropeTheta, ropeScaling }: RopeChange): JsonObject {
  const scaling = ropeScaling === undefined ? undefined : parseScaling(ropeScaling);
  const trained = scaling === undefined ? undefined : trainedLength(config);
  const grown = scaling === undefined || trained === undefined ? {} : { max_position_embeddings: Math.round(trained * scaling.factor) };
  return { ...config, ...(isObject(config.rope_parameters) ? inParameters : atTop)(config, ropeTheta, scaling, trained), ...grown };
}

/** As transformers 5 writes configs. */
function inParameters(
  config: JsonObject,
  theta: number | undefined,
  scaling: Scaling | undefined,
  trained: number | undefined,
): JsonObject {
  const all = config.rope_parameters as JsonObject;
  const full = all.full_attention;
  const own = isObject(full) ? full : all;
  const { rope_theta: base } = own;
  const changed = {
    ...(scaling === undefined ? own : { rope_theta: base, ...partialOf(own), ...scalingObject(scaling, trained) }),
    ...(theta === undefined ? {} : { rope_theta: theta }),
  };
  return { rope_parameters: isObject(full) ? { ...all, full_attention: changed } : changed };
}

/** As older versions did; GPT-NeoX has a name of its own for the base. */
function atTop(config: JsonObject, theta: number | undefined, scaling: Scaling | undefined, trained: number | undefined): JsonObject {
  const name = 'rotary_emb_base' in config ? 'rotary_emb_base' : 'rope_theta';
  return {
    ...(theta === undefined ? {} : { [name]: theta }),
    ...(scaling === undefined ? {} : { rope_scaling: scalingObject(scaling, trained) }),
  };
}

function scalingObject({ type, factor }: Scaling, trained: number | undefined): JsonObject {
  return { rope_type: type, factor, ...(type === 'linear' ? {} : { original_max_position_embeddings: trained }), ...MORE[type] };
}

/** How much of a head is turned is not a matter of scaling. */
function partialOf({ partial_rotary_factor: part }: JsonObject): JsonObject {
  return part === undefined ? {} : { partial_rotary_factor: part };
}

function parseScaling(text: string): Scaling {
  const [type = '', factor = '', ...rest] = text.split(':');
  const isSound = Object.hasOwn(MORE, type) && rest.length === 0 && /^\d+(\.\d+)?$/.test(factor) && Number(factor) > 1;
  if (isSound) return { type, factor: Number(factor) };
  throw new FpdtError(`run.ropeScaling: expected a type and a factor above 1, found '${text}'`, {
    code: 'invalid-value',
    hint: `write yarn:8; types: ${Object.keys(MORE).join(', ')}, whose frequencies do not depend on the sequence length`,
    details: { path: 'run.ropeScaling' },
  });
}

/** A config that is scaled already names the length before. */
function trainedLength(config: JsonObject): number {
  const ropes = [config.rope_parameters, config.rope_scaling].filter(isObject).flatMap((rope) => [rope, rope.full_attention]);
  const before = ropes.filter(isObject).map((rope) => rope.original_max_position_embeddings);
  const found = [...before, config.original_max_position_embeddings, config.max_position_embeddings].find((one) => typeof one === 'number');
  if (found !== undefined) return found;
  throw new FpdtError('run.ropeScaling: the model config has no max_position_embeddings to scale', {
    code: 'missing-key',
    hint: 'add the length that the model was trained at to its config.json as max_position_embeddings',
  });
}
