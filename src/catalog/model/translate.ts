/** From a Hugging Face config to a ModelSpec, by what a family's file says. */
import { FpdtError } from '../../spec/errors.js';
import { describe } from '../../spec/describe.js';
import type { JsonObject } from '../../spec/parseJson.js';
import type { ModelSpec } from '../../spec/types.js';
import { checkKeys } from './keys.js';
import { checkSizes, checkTotal } from './limits.js';
import { checkRope } from './rope.js';
import { compileForward, compileReverse, productsAgain, type Reverse } from './compile.js';
import { adapt, markFrozen } from './adapt.js';
import { instantiate, linearModules, type Steps, weightNames } from './instantiate.js';
import { evaluate, isTrue, resolveSettings, type Settings, type SettingValue, valueAt } from './settings.js';
import type { Code, LayerCode, LmHead, ModelCode } from '../../spec/modelCode.js';
import { type ModelWeights, resolveTraining, type Training, type TrainingRequest } from './training.js';
import type { Check, WrittenFamily } from './written.js';

export function translate(family: WrittenFamily, config: JsonObject, request: TrainingRequest = {}): ModelSpec {
  const settings = resolveSettings(family.settings, config);
  checkSizes(family, settings);
  checkKeys(family, config);
  checkRope(family, config);
  checkRequirements(family, config, settings);
  checkHeads(settings);
  for (const check of family.checks) checkThat(check, settings);
  const number = (name: string): number => Number(settings.get(name));
  const layers = Array.from({ length: number('numLayers') }, (_, layer) => layerSettings(family, config, settings, layer));
  const model: ModelSpec = {
    kind: 'model',
    family: family.name,
    numLayers: number('numLayers'),
    hiddenSize: number('hiddenSize'),
    numHeads: number('numHeads'),
    numKvHeads: number('numKvHeads'),
    headDim: number('headDim'),
    vocabSize: number('vocabSize'),
    tieWordEmbeddings: isTrue(settings.get('tied') ?? false),
    windows: layers.map((one) => numberOrNull(one.get('window'))),
    code: modelCode(family, settings, layers, request),
    hfConfig: config,
    ...(request.lora === undefined ? {} : { lora: request.lora.peft }),
  };
  checkTotal(model);
  return model;
}

function checkRequirements({ requires, name }: WrittenFamily, config: JsonObject, settings: Settings): void {
  for (const { key, only, else: otherwise, why } of requires) {
    const given = valueAt(config, key);
    const value = given === undefined && otherwise !== undefined ? evaluate(otherwise, settings) : given;
    const allowed = only.map((one) => evaluate(one, settings));
    if (value === undefined || value === null || allowed.includes(value as SettingValue)) continue;
    const found = given === undefined ? `absent, which means ${describe(value)},` : describe(value);
    throw new FpdtError(`model config.${key}: ${found} is not supported for ${name}`, {
      code: 'unsupported',
      hint: `${allowed.map((one) => JSON.stringify(one)).join(' or ')} is: ${why}`,
    });
  }
}

function checkThat({ that, says, hint }: Check, settings: Settings): void {
  if (isTrue(evaluate(that, settings))) return;
  throw new FpdtError(`model config: expected ${says}`, { code: 'invalid-value', hint });
}

function checkHeads(settings: Settings): void {
  const [hidden, heads, kvHeads, headDim] = ['hiddenSize', 'numHeads', 'numKvHeads', 'headDim'].map((name) => Number(settings.get(name)));
  if (!Number.isInteger(headDim)) throw mismatch('hidden elements', hidden, 'query heads', heads, 'so that heads are of one size');
  if ((heads ?? 0) % (kvHeads ?? 1) !== 0)
    throw mismatch('query heads', heads, 'key/value heads', kvHeads, 'so that heads form equal groups');
}

function mismatch(larger: string, a: number | undefined, smaller: string, b: number | undefined, remedy: string): FpdtError {
  return new FpdtError(`model config: ${a} ${larger} are not a multiple of ${b} ${smaller}`, {
    code: 'invalid-value',
    hint: `change one of them, ${remedy}`,
  });
}

function layerSettings(family: WrittenFamily, config: JsonObject, settings: Settings, layer: number): Settings {
  return resolveSettings(family.layerSettings, config, new Map([...settings, ['layer', layer]]));
}

function modelCode(family: WrittenFamily, settings: Settings, layers: readonly Settings[], request: TrainingRequest): ModelCode {
  const embedSteps = instantiate(family.embed, settings, { tokenIds: 0, positions: 0 });
  const headSteps = instantiate(family.head, settings, { x: Number(settings.get('hiddenSize')) });
  const logits = lmHead(family, settings);
  const own = Object.keys(family.layerSettings);
  const kinds = layers.map((one) => JSON.stringify(own.map((name) => one.get(name))));
  const programs = [...new Set(kinds)].map((kind) => layerSteps(family, layers[kinds.indexOf(kind)] ?? settings));
  checkWeights(family, programs);
  const weights: ModelWeights = {
    embed: weightNames(embedSteps),
    head: weightNames(headSteps),
    lmHead: logits.weights.map(({ name }) => name),
    layer: [...new Set(programs.slice(0, 1).flatMap(({ before, after }) => [before, after].flatMap(weightNames)))],
    linear: [...new Set(programs.slice(0, 1).flatMap(({ before, after }) => [before, after].flatMap(linearModules)))],
    layers: family.layers,
    numLayers: layers.length,
    lmHeadModule: logits.module,
  };
  const { ofEnds, ofLayers } = resolveTraining(weights, request);
  const keys = ofLayers.map(({ isFrozen, adapterOf }, layer) =>
    JSON.stringify([kinds[layer], weights.layer.map(isFrozen), weights.linear.map((name) => adapterOf(name) ?? null)]),
  );
  const names = [...new Set(keys)];
  const classes = names.map((name) => {
    const layer = keys.indexOf(name);
    return layerCode(layerSteps(family, layers[layer] ?? settings), layers[layer] ?? settings, ofLayers[layer] ?? ofEnds);
  });
  const [embed, head] = [adapt(embedSteps, ofEnds), adapt(headSteps, ofEnds)];
  const [x, y] = [outputOf(embed, 'x'), outputOf(head, 'y')];
  return {
    layers: family.layers,
    classes,
    classOf: keys.map((key) => names.indexOf(key)),
    embed: compileForward(embed, { [x]: 'x' }),
    embedBwd: compileReverse(embed, { upstream: { [x]: 'dx' }, cast: false, inputs: {} }),
    head: compileForward(head, { [y]: 'y' }),
    headBwd: compileReverse(head, { upstream: { [y]: 'dy' }, cast: false, inputs: { x: { view: 'dx', add: false } } }),
    lmHead: { ...logits, weights: markFrozen(logits.weights, ofEnds) },
  };
}

interface LayerSteps {
  readonly before: Steps;
  readonly after: Steps;
}

function layerSteps({ pre, post }: WrittenFamily, settings: Settings): LayerSteps {
  const hidden = Number(settings.get('hiddenSize'));
  return {
    before: instantiate(pre, settings, { x: hidden, positions: 0 }),
    after: instantiate(post, settings, { x: hidden, o: Number(settings.get('queryWidth')) }),
  };
}

/** All kinds of layers have the same weights. */
function checkWeights({ name }: WrittenFamily, programs: readonly LayerSteps[]): void {
  const tables = programs.map(({ before, after }) =>
    JSON.stringify([before, after].map(({ steps }) => steps.flatMap(({ weights }) => weights))),
  );
  if (new Set(tables).size <= 1) return;
  throw new FpdtError(`model config: layers of this ${name} have different weights, which is not supported`, {
    code: 'unsupported',
    hint: 'give all layers the same norms and projections',
  });
}

function layerCode(plain: LayerSteps, settings: Settings, training: Training): LayerCode {
  const [before, after] = [adapt(plain.before, training), adapt(plain.after, training)];
  const [q, k, v, y] = [outputOf(before, 'q'), outputOf(before, 'k'), outputOf(before, 'v'), outputOf(after, 'y')];
  const forward = (results: Readonly<Record<string, string>>): Code => compileForward(before, results);
  const reverse: Reverse = {
    upstream: { [y]: 'dx' },
    cast: false,
    inputs: { o: { view: 'do', add: false }, x: { view: 'dx', add: false } },
    owned: 'dx',
  };
  const kept = productsAgain(after, reverse);
  return {
    attention: { scale: Number(settings.get('attentionScale')), softcap: numberOrNull(settings.get('attentionSoftcap')) },
    pre: forward({ [q]: 'q', [k]: 'k', [v]: 'v' }),
    preQ: forward({ [q]: 'q' }),
    preKv: forward({ [k]: 'k', [v]: 'v' }),
    preBwd: compileReverse(before, {
      upstream: { [q]: 'dq', [k]: 'dk', [v]: 'dv' },
      cast: true,
      inputs: { x: { view: 'dx', add: true } },
    }),
    post: compileForward(after, { [y]: 'y' }),
    postBwd: compileReverse(after, reverse),
    postKeep: compileForward(after, { [y]: 'y' }, kept),
    postBwdKept: compileReverse(after, reverse, kept),
  };
}

function outputOf({ outputs }: Steps, name: string): string {
  const value = outputs[name];
  if (value === undefined) throw new RangeError(`a family's program makes no ${name}`);
  return value;
}

function lmHead({ lmHead: { weight, bias, scale, softcap } }: WrittenFamily, settings: Settings): LmHead {
  const [vocab, hidden] = [Number(settings.get('vocabSize')), Number(settings.get('hiddenSize'))];
  const isTied = isTrue(settings.get('tied') ?? false);
  const hasBias = isTrue(evaluate(bias, settings));
  if (isTied && hasBias) {
    throw new FpdtError('model config: an lm_head with a bias cannot be tied to the embedding here', {
      code: 'unsupported',
      hint: 'set tie_word_embeddings to false',
    });
  }
  return {
    module: weight,
    weights: isTied
      ? []
      : [{ name: `${weight}.weight`, shape: [vocab, hidden] }, ...(hasBias ? [{ name: `${weight}.bias`, shape: [vocab] }] : [])],
    scale: Number(evaluate(scale, settings)),
    softcap: numberOrNull(evaluate(softcap, settings)),
  };
}

function numberOrNull(value: SettingValue | undefined): number | null {
  return value === undefined || value === null || value === false ? null : Number(value);
}
