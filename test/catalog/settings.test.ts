/** What a family's settings make of a config, and what is said of one that they cannot use. */
import { describe, expect, test } from 'vitest';
import { evaluate, type Expression, isTrue, resolveSettings, type Setting, type SettingValue } from '../../src/catalog/model/settings.js';
import { errorOf } from '../spec/inputs.js';

describe('expressions', () => {
  const settings = new Map<string, SettingValue>([
    ['hidden', 64],
    ['heads', 8],
    ['bias', false],
    ['window', null],
    ['kind', 'silu'],
  ]);

  test.each<[Expression, SettingValue]>([
    [3, 3],
    [null, null],
    ['hidden', 64],
    ['window', null],
    ['gelu', 'gelu'],
    [['+', 1, 2, 'heads'], 11],
    [['-', 'hidden', 'heads', 1], 55],
    [['*', 2, 3, 4], 24],
    [['/', 'hidden', 'heads', 2], 4],
    [['%', 'hidden', 7], 1],
    [['^', ['/', 'hidden', 'heads'], -1], 0.125],
    [['floor', ['*', 0.3, 'heads']], 2],
    [['=', 'kind', 'silu'], true],
    [['=', 'window', null], true],
    [['=', 'heads', '8'], false],
    [['>=', 'heads', 8], true],
    [['>=', 'heads', 9], false],
    [['not', 'window'], true],
    [['or', 'bias', 'window', 'heads'], true],
    [['or', 'bias', 'window'], false],
    [['and', 'heads', ['not', 'bias']], true],
    [['and', 'heads', 'bias'], false],
    [['if', ['=', 'heads', 8], 'kind', 'gelu'], 'silu'],
    [['if', 'bias', 1], null],
    // Only the branch that is taken is looked at.
    [['if', 'heads', 5, ['root', 4]], 5],
  ])('%j is %j', (expression, value) => {
    expect(evaluate(expression, settings)).toBe(value);
  });

  test('an operator that is not there is an error of the family', () => {
    expect(() => evaluate(['root', 4], settings)).toThrow(/no operator 'root'/);
  });

  test('null, false and zero are not true; any text is', () => {
    expect([null, false, 0, '', 'no', -1, true].map(isTrue)).toEqual([false, false, false, true, true, true, true]);
  });
});

const resolved = (written: Readonly<Record<string, Setting>>, config: object): object =>
  Object.fromEntries(resolveSettings(written, config as Record<string, unknown>));
const refused = (written: Readonly<Record<string, Setting>>, config: object) => errorOf(() => resolved(written, config));

const HEADS: Readonly<Record<string, Setting>> = {
  hidden: { size: 'hidden_size' },
  heads: { size: 'num_attention_heads' },
  kvHeads: { size: 'num_key_value_heads', else: 'heads' },
  headDim: { size: 'head_dim', else: ['/', 'hidden', 'heads'] },
};

describe('settings', () => {
  test('are what the config says, or computed of those before them', () => {
    expect(resolved(HEADS, { hidden_size: 64, num_attention_heads: 8 })).toEqual({ hidden: 64, heads: 8, kvHeads: 8, headDim: 8 });
    expect(resolved(HEADS, { hidden_size: 64, num_attention_heads: 8, num_key_value_heads: 2, head_dim: 32 })).toMatchObject({
      kvHeads: 2,
      headDim: 32,
    });
    expect(resolved({ ...HEADS, scale: { compute: ['^', 'headDim', -0.5] } }, { hidden_size: 64, num_attention_heads: 4 })).toMatchObject({
      scale: 0.25,
    });
  });

  test('have one default for a key that is absent and another for null, where the two differ', () => {
    const window: Setting = { size: 'sliding_window', else: 4096, null: null };
    const kvHeads: Setting = { size: 'num_key_value_heads', else: 8, null: 1 };
    expect(resolved({ window, kvHeads }, {})).toEqual({ window: 4096, kvHeads: 8 });
    expect(resolved({ window, kvHeads }, { sliding_window: null, num_key_value_heads: null })).toEqual({ window: null, kvHeads: 1 });
    expect(resolved({ tied: { flag: 'tie', else: true } }, { tie: null })).toEqual({ tied: true });
  });

  test('are under the first key that is there, however deep', () => {
    const factor: Setting = { number: ['rope.factor', 'rotary_factor'], else: 1 };
    expect(resolved({ factor }, { rotary_factor: 0.5 })).toEqual({ factor: 0.5 });
    expect(resolved({ factor }, { rotary_factor: 0.5, rope: { factor: 0.25 } })).toEqual({ factor: 0.25 });
    expect(resolved({ factor }, { rope: null })).toEqual({ factor: 1 });
  });

  test('of a layer stand at its place in the list', () => {
    const kind: Setting = { text: 'layer_types', each: true, else: 'full' };
    const layer = (number: number, config: object): SettingValue | undefined =>
      resolveSettings(
        { kind },
        config as Record<string, unknown>,
        new Map<string, SettingValue>([
          ['numLayers', 2],
          ['layer', number],
        ]),
      ).get('kind');
    expect([0, 1].map((number) => layer(number, { layer_types: ['sliding', 'full'] }))).toEqual(['sliding', 'full']);
    expect(layer(1, {})).toBe('full');
    for (const list of [['full'], 'full']) {
      expect(errorOf(() => layer(0, { layer_types: list })).message).toMatch(
        /layer_types: expected a list of 2, one for each layer, found/,
      );
    }
  });
});

describe('a config is refused', () => {
  test.each<[Setting, unknown, RegExp]>([
    [{ size: 'key' }, '64', /key: expected a whole number of at least 1, found "64"/],
    [{ size: 'key' }, 1.5, /whole number of at least 1, found 1.5/],
    [{ size: 'key' }, 0, /whole number of at least 1, found 0/],
    [{ number: 'key' }, 'x', /a finite number, found "x"/],
    [{ number: 'key' }, Number.POSITIVE_INFINITY, /a finite number/],
    [{ flag: 'key' }, 1, /true or false, found 1/],
    [{ text: 'key' }, true, /a text, found true/],
  ])('%j of %j', (setting, value, message) => {
    const error = refused({ it: setting }, { key: value });
    expect(error).toMatchObject({ code: 'invalid-value', details: { path: 'model config.key' } });
    expect(error.message).toMatch(message);
  });

  test('without a key that must be there, by the name that it has there instead', () => {
    expect(refused(HEADS, { hiden_size: 64 })).toMatchObject({
      code: 'missing-key',
      message: 'model config.hidden_size: expected a whole number of at least 1, found nothing',
      hint: "'hiden_size' was given; did you mean 'hidden_size'?",
    });
    const { message, hint } = refused(HEADS, { hidden_size: null });
    expect([message, hint]).toEqual(['model config.hidden_size: expected a whole number of at least 1, found null', 'give hidden_size']);
  });

  test('with sizes of which none can be computed, by what could be changed', () => {
    expect(refused(HEADS, { hidden_size: 64, num_attention_heads: 5 })).toMatchObject({
      code: 'invalid-value',
      message: 'model config.head_dim: expected a whole number of at least 1, it is left out, which makes it 12.8',
      hint: 'give head_dim or change hidden_size or change num_attention_heads',
    });
  });

  test('with a value that is not run here, by those that are', () => {
    const activation: Setting = { text: 'hidden_act', else: 'silu', only: ['silu', 'gelu'] };
    expect(resolved({ activation }, { hidden_act: 'gelu' })).toEqual({ activation: 'gelu' });
    expect(refused({ activation }, { hidden_act: 'mish' })).toMatchObject({ code: 'unsupported', hint: 'supported: silu, gelu' });
  });
});
