import { describe, expect, test } from 'vitest';
import { parseSpecs } from '../../src/catalog/index.js';
import { changeRope } from '../../src/spec/ropeChange.js';
import families from '../families.json' with { type: 'json' };
import { errorOf, LLAMA, specs } from './inputs.js';

const OLD = { ...LLAMA, max_position_embeddings: 4096, rope_theta: 10_000 };
const YARN = { rope_type: 'yarn', factor: 8, original_max_position_embeddings: 4096 };

describe('context extension', () => {
  test('is written where the config keeps its rotary settings', () => {
    const change = { ropeTheta: 500_000, ropeScaling: 'yarn:8' };
    expect(changeRope(OLD, change)).toEqual({ ...OLD, rope_theta: 500_000, rope_scaling: YARN, max_position_embeddings: 32_768 });
    const flat = { ...LLAMA, max_position_embeddings: 4096, rope_parameters: { rope_type: 'default', rope_theta: 10_000 } };
    expect(changeRope(flat, change)).toMatchObject({ rope_parameters: { ...YARN, rope_theta: 500_000 }, max_position_embeddings: 32_768 });
    const sliding = { rope_type: 'default', rope_theta: 10_000 };
    const byKind = { ...flat, rope_parameters: { full_attention: sliding, sliding_attention: sliding } };
    expect(changeRope(byKind, change).rope_parameters).toEqual({
      full_attention: { ...YARN, rope_theta: 500_000 },
      sliding_attention: sliding,
    });
    expect(changeRope({ model_type: 'gpt_neox', rotary_emb_base: 1 }, { ropeTheta: 7 })).toEqual({
      model_type: 'gpt_neox',
      rotary_emb_base: 7,
    });
  });

  test('of a model that is scaled already counts from the length before', () => {
    const scaled = changeRope(OLD, { ropeScaling: 'yarn:4' });
    expect(changeRope(scaled, { ropeScaling: 'linear:2.5' })).toMatchObject({
      rope_scaling: { rope_type: 'linear', factor: 2.5 },
      max_position_embeddings: 10_240,
    });
  });

  test('is what a run is planned with', () => {
    const { model } = specs({ model: OLD, run: { ropeTheta: 1e6, ropeScaling: 'llama3:8' } });
    expect(model.hfConfig).toMatchObject({
      rope_theta: 1e6,
      rope_scaling: { rope_type: 'llama3', factor: 8, original_max_position_embeddings: 4096, low_freq_factor: 1, high_freq_factor: 4 },
    });
  });

  test.each(['yarn', 'yarn:1', 'yarn:8:2', 'dynamic:2', 'yarn:x', ':2', 'toString:2'])('does not know %s', (ropeScaling) => {
    const error = errorOf(() => specs({ model: OLD, run: { ropeScaling } }));
    expect(error.message).toBe(`run.ropeScaling: expected a type and a factor above 1, found '${ropeScaling}'`);
    expect(error.hint).toContain('write yarn:8');
  });

  test('needs a length to extend', () => {
    expect(errorOf(() => specs({ run: { ropeScaling: 'yarn:2' } })).hint).toContain('max_position_embeddings');
  });

  test.each([
    ['gpt2', 'gpt2 has no rotary embedding'],
    ['gptj', 'gptj has a rotary embedding with a fixed base'],
  ] as const)('of %s would change nothing, and is refused', (name, message) => {
    const cluster = { gpus: 1, gpu: 'cpu' };
    const error = errorOf(() => parseSpecs({ model: families[name], cluster, run: { seqLen: 64, ropeTheta: 1e6 } }));
    expect(error.message).toContain(message);
  });
});
