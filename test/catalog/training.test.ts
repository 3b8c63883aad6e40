/** What of a model trains: found by name and pattern, and what its code and table leave out for the rest. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { frozenWeights } from '../../src/catalog/model/freeze.js';
import { numberGlobs } from '../../src/catalog/model/numberGlobs.js';
import { workOf } from '../../src/catalog/model/liveness.js';
import { FpdtError } from '../../src/spec/errors.js';
import type { Code, ModelCode } from '../../src/spec/modelCode.js';
import { errorOf, LLAMA as BASE } from '../spec/inputs.js';

const LLAMA = { ...BASE, num_hidden_layers: 2 };

const code = (freeze: readonly string[], more: object = {}): ModelCode => parseModel({ ...LLAMA, ...more }, { freeze }).code;
const trained = (freeze: readonly string[], more: object = {}): readonly string[] => {
  const model = parseModel({ ...LLAMA, ...more }, { freeze });
  const { layers, head, embed } = parameterTable(model);
  const named = model.code.classOf.flatMap((kind, i) => (layers[kind]?.weights ?? []).map((one) => ({ ...one, name: `${i}.${one.name}` })));
  return [...embed, ...named, ...head].filter(({ trainable }) => trainable).map(({ name }) => name);
};
const opsOf = ({ instructions }: Code): readonly string[] => instructions.map(({ op }) => op);
const allButNorms = ['model.embed_tokens.weight', '*_proj.weight', 'lm_head.weight'];

describe('what is frozen', () => {
  test('is found by name and by pattern; a layer that differs is a class of its own', () => {
    expect(trained(allButNorms)).toEqual([
      '0.input_layernorm.weight',
      '0.post_attention_layernorm.weight',
      '1.input_layernorm.weight',
      '1.post_attention_layernorm.weight',
      'model.norm.weight',
    ]);
    expect(trained([...allButNorms, 'model.layers.[!1].*'])).toEqual([
      '1.input_layernorm.weight',
      '1.post_attention_layernorm.weight',
      'model.norm.weight',
    ]);
    expect(code(['model.layers.0.*']).classOf).toEqual([0, 1]);
    expect(code(['model.layers.?.*']).classOf).toEqual([0, 0]);
    expect(code(['model.layers.[1-9].*'])).toEqual(code(['model.layers.[^0].*']));
    expect(code(['model.layers.[-0].*'])).toEqual(code(['model.layers.0.*']));
  });

  test('of a tied model has both of its names', () => {
    const tied = { tie_word_embeddings: true };
    expect(code(['lm_head.weight'], tied)).toEqual(code(['model.embed_tokens.weight'], tied));
  });

  test('has no place in a region, and a region for nothing has one element', () => {
    const table = parameterTable(parseModel(LLAMA, { freeze: [...allButNorms, 'model.layers.*'] }));
    expect(table.layers.map(({ numElements }) => numElements)).toEqual([1]);
    expect([table.numEmbedElements, table.numHeadNormElements, table.numHeadElements]).toEqual([1, 64, 65]);
    expect(table.numTrainedParameters).toBe(64);
    expect(table.numModelParameters).toBe(parameterTable(parseModel(LLAMA)).numModelParameters);
  });

  test('has no gradient formed, nor what only that would read', () => {
    const [all] = code([]).classes;
    const [norms] = code(allButNorms).classes;
    if (all === undefined || norms === undefined) throw new Error('a model without layers');
    const flops = (one: Code): number => workOf(one, 10, { w: 4 }).matmulFlops;
    expect(flops(norms.preBwd)).toBe(flops(all.preBwd) / 2);
    // The product that only the gradient of down_proj reads is not formed again.
    expect(opsOf(all.postBwd).filter((op) => op === 'multiply')).toHaveLength(1);
    expect(opsOf(norms.postBwd).filter((op) => op === 'multiply')).toHaveLength(0);
    expect(code(['model.embed_tokens.weight']).embedBwd.instructions).toEqual([]);
    expect(opsOf(code(['model.norm.weight']).headBwd)).toContain('rmsnormBwd');
  });
});

describe('a pattern that cannot be meant', () => {
  test.each([
    ['model.layers.0', "did you mean 'model.layers.0.*'?"],
    ['model.embed_token.weight', "did you mean 'model.embed_tokens.weight'?"],
    ['*.q_porj.weight', "did you mean '*.q_proj.weight'?"],
    ['transformer.h.*', "weights are named like 'model.embed_tokens.weight', "],
    ['lm_haed.weight', "did you mean 'lm_head.weight'?"],
  ])('%s', (pattern, hint) => {
    const error = errorOf(() => parseModel(LLAMA, { freeze: [pattern] }));
    expect(error).toMatchObject({ code: 'no-such-weight', message: `run.freeze: no weight matches '${pattern}'` });
    expect(error.hint).toContain(hint);
  });

  test.each([
    ['model.layers.[9-1].*', 'has [9-1], whose range 9-1 ends before it begins', "goes upwards, as in '[0-3]'"],
    ['model.layers.[8-11].*', 'has [8-11], whose range 8-1 ends before it begins', "layers 8 to 11 are '[8-9]' and '1[01]'"],
    [
      'model.layers.[0-31].*',
      'has [0-31], a set of the characters 0123 and not of the numbers 0 to 31',
      "for the numbers write 'model.layers.[0-9].*' 'model.layers.[12][0-9].*' 'model.layers.3[01].*'; for the characters [0123]",
    ],
    ['*.[!10-15].*', 'has [!10-15], a set of the characters 015 and not of the numbers 10 to 15', 'a set stands for one character'],
    ['[z-a]', 'has [z-a], whose range z-a ends before it begins', 'a set stands for one character'],
    ['*[!b-ca-Z]*', 'has [!b-ca-Z], whose range a-Z ends before it begins', 'a set stands for one character'],
    ['[😀-\uFFFD]', 'has [😀-\uFFFD], whose range 😀-\uFFFD ends before it begins', 'a set stands for one character'],
    ['[😁-😀]', 'has [😁-😀], whose range 😁-😀 ends before it begins', 'a set stands for one character'],
    ['[]', 'has [], a set of nothing', "as in '[0-3]' or '[!0]'"],
    ['model.layers.[!].*', 'has [!], a set of nothing', "as in '[0-3]' or '[!0]'"],
    ['model.layers.[^].*', 'has [^], a set of nothing', "as in '[0-3]' or '[!0]'"],
    ['[', "has a '[' without a ']'", "close it, as in '[0-3]'"],
    ['model.layers.[0-1.*', "has a '[' without a ']'", "close it, as in '[0-3]'"],
  ])('%s has a set that is none', (pattern, problem, hint) => {
    const error = errorOf(() => parseModel(LLAMA, { freeze: [pattern] }));
    expect(error).toMatchObject({ code: 'invalid-value', message: `run.freeze: '${pattern}' ${problem}` });
    expect(error.hint).toContain(hint);
  });

  test('numbers of layers are written as patterns that match them, and nothing else', () => {
    const weights = Array.from({ length: 1200 }, (_, layer) => ({ name: `${layer}`, weight: `${layer}` }));
    const isExact = ([one, other]: readonly [number, number]): void => {
      const [first, last] = [Math.min(one, other), Math.max(one, other)];
      const frozen = frozenWeights(numberGlobs(`${first}`, `${last}`), [...weights, { name: 'x', weight: 'x' }]);
      expect([...frozen].map(Number).toSorted((a, b) => a - b)).toEqual(Array.from({ length: last - first + 1 }, (_, i) => first + i));
    };
    for (const range of [
      [0, 31],
      [8, 11],
      [0, 9],
      [0, 99],
      [10, 99],
      [7, 7],
      [99, 100],
      [0, 1199],
    ] as const)
      isExact(range);
    fc.assert(fc.property(fc.tuple(fc.nat(1199), fc.nat(1199)), isExact), { numRuns: 60 });
  });

  test.each(['[0-35-7]', '[0-3]', '[0-9a-f]'])('%s is a set of characters', (pattern) => {
    expect(
      frozenWeights(
        [pattern],
        ['1', 'y'].map((name) => ({ name, weight: name })),
      ).size,
    ).toBe(1);
  });

  test.each(['[!a]', ']', '[a^]', '[-]'])('%s is a set, or a name, of no weight', (pattern) => {
    expect(errorOf(() => parseModel(LLAMA, { freeze: [pattern] }))).toMatchObject({ code: 'no-such-weight' });
  });

  test('any text is a pattern or an error with a hint', () => {
    const piece = fc.oneof(
      fc.constantFrom('*', '?', '[', ']', '!', '^', '-', '\\', '.', 'layers', '0', '1', '9', '{', '$'),
      fc.string({ unit: 'binary' }),
    );
    const pattern = fc.array(piece, { minLength: 1, maxLength: 12 }).map((pieces) => pieces.join(''));
    const weights = ['model.layers.0.x', 'model.layers.1.x', 'y'].map((name) => ({ name, weight: name }));
    const isClear = (text: string): boolean => {
      try {
        return frozenWeights([text], weights).size > 0;
      } catch (error) {
        return error instanceof FpdtError && error.hint !== undefined;
      }
    };
    fc.assert(fc.property(pattern, isClear), { numRuns: 3000 });
  });

  test('all of them: nothing trains', () => {
    expect(errorOf(() => parseModel(LLAMA, { freeze: ['*.weight'] }))).toMatchObject({ code: 'nothing-trains' });
  });
});
