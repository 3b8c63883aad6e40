/** The files of src/catalog/families, each on its own, and the code of the small models in test/families.json. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { familyOf, MODEL_TYPES } from '../../src/catalog/families/index.js';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { isOfType } from '../../src/catalog/model/keyTypes.js';
import type { Expression, Setting } from '../../src/catalog/model/settings.js';
import { familySchema, type WrittenFamily } from '../../src/catalog/model/written.js';
import type { Code, Instruction, LayerCode, ModelCode, PrimitiveName } from '../../src/spec/modelCode.js';
import type { ModelSpec } from '../../src/spec/types.js';

const FOLDER = 'src/catalog/families';
const FILES = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.json'))
  .map((file) => [file.replace('.json', ''), familySchema.parse(JSON.parse(readFileSync(`${FOLDER}/${file}`, 'utf8')))] as const);

/** Small models of all families, which the worker's tests run too. */
const CONFIGS = JSON.parse(readFileSync('test/families.json', 'utf8')) as Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** What translating takes from the settings of every family, and of those that have it. */
const TAKEN = ['numLayers', 'hiddenSize', 'numHeads', 'numKvHeads', 'headDim', 'vocabSize', 'queryWidth', 'attentionScale'];
const TAKEN_IF_THERE = ['tied', 'window', 'attentionSoftcap'];

/** What the steps of each primitive may say, beside op, of, to and when: the worker takes a key that it does not know in silence. */
const SAYS: Readonly<Record<PrimitiveName, readonly string[]>> = {
  linear: ['weight', 'bias', 'width', 'part', 'transposed'],
  rmsnorm: ['weight', 'eps', 'size', 'style', 'offset'],
  layernorm: ['weight', 'bias', 'eps', 'size', 'offset'],
  angles: ['dims', 'module', 'prefix', 'theta'],
  rope: ['headDim', 'dims', 'style'],
  activation: ['kind'],
  multiply: [],
  add: [],
  scale: ['by', 'rounded'],
  slice: ['groups', 'start', 'end'],
  lookup: ['weight', 'rows', 'width', 'offset', 'padding'],
};

test('every file is registered, and no model type twice', () => {
  expect(FILES.length).toBeGreaterThan(1);
  expect(MODEL_TYPES.toSorted()).toEqual(FILES.flatMap(([, { modelTypes }]) => modelTypes).toSorted());
  expect(new Set(MODEL_TYPES).size).toBe(MODEL_TYPES.length);
});

describe.each(FILES)('%s', (file, family) => {
  test('is called as its file, and found by its model types', () => {
    expect(family.name).toBe(file);
    for (const type of family.modelTypes) expect(familyOf(type)).toEqual(family);
  });

  test('uses every setting, and each only once it is there', () => {
    const own = Object.keys({ ...family.settings, ...family.layerSettings });
    expect(own).toEqual(expect.arrayContaining(TAKEN));
    const uses = usesOf(family);
    const used = [...uses.map(({ name }) => name), ...TAKEN, ...TAKEN_IF_THERE];
    expect(own.filter((name) => !used.includes(name))).toEqual([]);
    const unknown = uses.filter(({ name, mayBeText }) => !mayBeText && name !== 'layer' && !own.includes(name));
    expect(unknown).toEqual([]);
    const all = Object.entries({ ...family.settings, ...family.layerSettings });
    for (const [i, [name, setting]] of all.entries()) {
      const later = all.slice(i).map(([one]) => one);
      expect(
        usesIn(setting).filter((use) => later.includes(use.name)),
        name,
      ).toEqual([]);
    }
  });

  test('gives every key that it names a type, once', () => {
    const named = Object.values(family.keys).flat();
    expect(new Set(named).size).toBe(named.length);
    for (const type of Object.keys(family.keys)) expect(() => isOfType(null, type)).not.toThrow();
  });

  test('says nothing of a step that its primitive would not read', () => {
    for (const { op, of: _of, to: _to, when: _when, ...said } of [family.embed, family.pre, family.post, family.head].flat()) {
      expect(Object.keys(said).filter((key) => !SAYS[op].includes(key))).toEqual([]);
    }
  });

  test('has a small model among those that are run', () => {
    const types = Object.values(CONFIGS).map(({ model_type: type }) => type);
    for (const type of family.modelTypes) expect(types).toContain(type);
  });
});

describe.each(Object.entries(CONFIGS))('the small %s', (_name, config) => {
  const small = (): ModelSpec => parseModel(config);

  test('forms q alone and k, v alone of what forms all three', () => {
    for (const { pre, preQ, preKv } of small().code.classes) {
      expect([...new Set([...weightsOf(preQ), ...weightsOf(preKv)])].toSorted()).toEqual([...new Set(weightsOf(pre))].toSorted());
      expect([stored(pre), stored(preQ), stored(preKv)]).toEqual([['@k', '@q', '@v'], ['@q'], ['@k', '@v']]);
    }
  });

  test('has a gradient in reverse for every weight that it uses going forward, as often', () => {
    const { code, ...model } = small();
    const pairs = [
      ...code.classes.flatMap(({ pre, preBwd, post, postBwd, postKeep, postBwdKept }) => [
        [pre, preBwd],
        [post, postBwd],
        [postKeep, postBwdKept],
      ]),
      [code.embed, code.embedBwd],
      [code.head, code.headBwd],
    ] as const;
    for (const [forward, reverse] of pairs as readonly (readonly [Code, Code])[]) {
      const gradients = reverse.instructions.filter(({ op }) => op.endsWith('Bwd'));
      expect(gradients.flatMap(({ weights }) => weights.map(placeOf)).toSorted()).toEqual(
        forward.instructions.flatMap(({ weights }) => weights.map(placeOf)).toSorted(),
      );
    }
    const { layers, numModelParameters } = parameterTable({ ...model, code });
    for (const { weights } of layers) expect(new Set(weights.map(({ name }) => name)).size).toBe(weights.length);
    expect(Number.isSafeInteger(numModelParameters)).toBe(true);
  });

  test('keeps side by side what the reverse would form again by products', () => {
    for (const { post, postBwd, postKeep, postBwdKept } of small().code.classes) {
      const ofOp = ({ instructions }: Code, op: string): readonly Instruction[] => instructions.filter((one) => one.op === op);
      expect(ofOp(postKeep, 'linear')).toEqual(ofOp(post, 'linear'));
      expect(ofOp(postBwdKept, 'linear')).toEqual([]);
      const again = ofOp(postBwd, 'linear').flatMap(({ writes }) => writes);
      const kept = ofOp(postKeep, 'store').filter(({ into }) => into === '@kept');
      const starts = new Map(kept.map(({ reads: [value], attributes: { start } }) => [value, start]));
      expect(new Set(starts.keys())).toEqual(new Set(again));
      expect(new Map(ofOp(postBwdKept, 'load').map(({ writes: [value], attributes: { start } }) => [value, start]))).toEqual(starts);
      const width = again.reduce((sum, value) => sum + (postBwd.widths[value] ?? 0), 0);
      expect([postKeep.widths['@kept'], postBwdKept.widths['@kept']]).toEqual([width, width]);
    }
  });

  test('has widths that fit, and leaves no value behind', () => {
    for (const [name, one] of codesOf(small().code)) {
      for (const instruction of one.instructions)
        expect(misfit(instruction, one.widths), `${name}: ${JSON.stringify(instruction)}`).toBeUndefined();
      const made = one.instructions.flatMap(({ writes }) => writes);
      expect(one.instructions.flatMap(({ frees }) => frees).toSorted(), name).toEqual(made.toSorted());
    }
  });
});

/** A text in an expression: the name of a setting, or perhaps a text of its own. */
interface Use {
  readonly name: string;
  readonly mayBeText: boolean;
}

function usesOf({ settings, layerSettings, requires, checks, embed, pre, post, head, lmHead }: WrittenFamily): readonly Use[] {
  const texts = ['op', 'of', 'to', 'weight', 'style', 'module'];
  const attributes = [embed, pre, post, head].flat().flatMap((step) => Object.entries(step).filter(([key]) => !texts.includes(key)));
  const { bias, scale, softcap } = lmHead;
  return [
    ...[...Object.values(settings), ...Object.values(layerSettings)].flatMap(usesIn),
    ...checks.flatMap(({ that }) => texted(that)),
    ...requires.flatMap(({ only, else: otherwise = null }) => [...only, otherwise].flatMap((one) => texted(one, true))),
    ...attributes
      .flatMap(([key, value]) => (key === 'part' ? (value as Expression[]) : [value as Expression]))
      .flatMap((one) => texted(one)),
    ...[bias, scale, softcap].flatMap((one) => texted(one)),
  ];
}

function usesIn({ text, else: otherwise = null, null: forNull = null, compute = null }: Setting): readonly Use[] {
  return [otherwise, forNull, compute].flatMap((one) => texted(one, text !== undefined));
}

/** What is compared with, and what a choice is between, may be texts. */
function texted(expression: Expression, mayBeText = false): readonly Use[] {
  if (typeof expression === 'string') return [{ name: expression, mayBeText }];
  if (!Array.isArray(expression)) return [];
  const [operator, ...operands] = expression as readonly Expression[];
  return operands.flatMap((one, i) => texted(one, i > 0 && (operator === '=' || operator === 'if')));
}

function codesOf({ classes, embed, embedBwd, head, headBwd }: ModelCode): readonly (readonly [string, Code])[] {
  const ofLayers = classes.flatMap(({ attention: _attention, ...codes }: LayerCode) => Object.entries(codes));
  return [...ofLayers, ...Object.entries({ embed, embedBwd, head, headBwd })];
}

const placeOf = ({ name, part }: Instruction['weights'][number]): string => `${name} ${part?.join() ?? ''}`;
const weightsOf = ({ instructions }: Code): readonly string[] => instructions.flatMap(({ weights }) => weights.map(placeOf));
const stored = ({ instructions }: Code): readonly string[] =>
  instructions.flatMap(({ op, into }) => (op === 'store' && into !== undefined ? [into] : [])).toSorted();

/** What is wrong with the widths of an instruction. */
function misfit({ op, reads, writes, into, weights, attributes }: Instruction, widths: Code['widths']): string | undefined {
  const [first = 0, second = 0] = reads.map((name) => widths[name]);
  const made = widths[into ?? writes[0] ?? ''] ?? first;
  const [weight] = weights;
  const shape = attributes.transposed === true ? (weight?.shape ?? []).toReversed() : (weight?.shape ?? []);
  const outputs = weight?.part === undefined ? shape[0] : weight.part[1] - weight.part[0];
  switch (op) {
    case 'linear':
      return first === shape[1] && made === outputs ? undefined : `${first} -> ${made} by ${shape.join()}`;
    case 'linearBwd':
      return first === outputs && second === shape[1] ? undefined : `${first} and ${second} by ${shape.join()}`;
    case 'add':
    case 'multiply':
    case 'multiplyBwd':
      return first === second && first === made ? undefined : `${first} and ${second} -> ${made}`;
    case 'load':
      return Number(attributes.end) - Number(attributes.start) === made && Number(attributes.end) <= first
        ? undefined
        : `${first} -> ${made}`;
    case 'store':
      if (attributes.start !== undefined) return Number(attributes.start) + first <= made ? undefined : `${first} into ${made}`;
      return first === made ? undefined : `${first} -> ${made}`;
    case 'addTo':
    case 'cast':
    case 'scale':
    case 'activation':
      return first === made ? undefined : `${first} -> ${made}`;
    default:
      return Object.values(attributes).some((value) => Number.isNaN(value)) ? 'NaN' : undefined;
  }
}
