import { describe, expect, it } from 'vitest';
import { parseModel } from '../../../src/catalog/models.js';
import { layerShape } from '../../../src/strategy/released/layerShape.js';
import { LLAMA } from '../../spec/inputs.js';

const NO_DROPOUT = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };
const GPT2 = { model_type: 'gpt2', n_embd: 64, n_layer: 2, n_head: 4, n_positions: 1024, vocab_size: 128, ...NO_DROPOUT };

describe('a layer by its parts', () => {
  it('of Llama: products, what autograd keeps, and the widest value', () => {
    const { input, output, mlp, mlpFirst, ...rest } = layerShape(parseModel(LLAMA).code, 100, 2);
    const [h, kv, f] = [64, 32, 96];
    expect(input).toEqual({ flops: 2 * (h * h + 2 * h * kv), weightElements: h * h + 2 * h * kv });
    expect(output).toEqual({ flops: 2 * h * h, weightElements: h * h });
    expect(mlp).toEqual({ flops: 6 * h * f, weightElements: 3 * h * f });
    expect(mlpFirst).toEqual({ flops: 4 * h * f, weightElements: 2 * h * f });
    // Gate, its activation, up and their product; a fused kernel forms the activation again.
    expect(rest).toMatchObject({ mlpKept: 4 * f, mlpKeptFused: 3 * f, mlpWidth: f });
  });

  it('of GPT-2: two products, the activation of which is not multiplied', () => {
    const { mlp, mlpFirst, mlpKept, mlpKeptFused, mlpWidth } = layerShape(parseModel(GPT2).code, 100, 2);
    expect(mlp.flops).toBe(2 * mlpFirst.flops);
    expect([mlpKept, mlpKeptFused, mlpWidth]).toEqual([512, 512, 256]);
  });

  it('in fp32 keeps as many elements, and moves more bytes', () => {
    const { code } = parseModel(LLAMA);
    const [half, whole] = [layerShape(code, 100, 2), layerShape(code, 100, 4)];
    expect(whole.mlpKept).toBe(half.mlpKept);
    expect(whole.mlp).toEqual(half.mlp);
    expect(whole.eager.forwardBytes).toBeGreaterThan(half.eager.forwardBytes);
  });
});
