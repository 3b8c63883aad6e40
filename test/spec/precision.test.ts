import { describe, expect, test } from 'vitest';
import { type Bend, errorOf, specs } from './inputs.js';

const GPU = { gpu: 'h100-80gb' };
const HALF = { dtype: 'float16' };
const half = (fp16: object, more: Bend = {}) => specs({ cluster: GPU, ...more, deepspeed: { fp16, ...more.deepspeed } });
const refusal = (deepspeed: object, run: object = {}, cluster: object = GPU) => errorOf(() => specs({ deepspeed, run, cluster }));

describe('float16', () => {
  test('is asked for by the fp16 section or the run, and written out for DeepSpeed', () => {
    for (const found of [half({ enabled: true }), half({ enabled: 'auto' }, { run: HALF }), half({}, { run: HALF })]) {
      expect(found.run).toMatchObject({ dtype: 'float16', lossScale: 1 });
      expect(found.deepspeed.config).toMatchObject({ fp16: { enabled: true }, bf16: { enabled: false } });
    }
    expect(specs({ cluster: GPU, run: HALF }).deepspeed.config).toMatchObject({ fp16: { enabled: true } });
    const both = half({ enabled: 'auto' }, { deepspeed: { bf16: { enabled: 'auto' } } });
    expect(both.deepspeed.config).toMatchObject({ fp16: { enabled: false }, bf16: { enabled: true } });
    expect(specs({ cluster: GPU }).deepspeed.config).not.toHaveProperty('fp16');
  });

  test('is what "auto" in the fp16 section alone leaves open on a GPU: DeepSpeed would not train in bf16 then', () => {
    expect(half({ enabled: 'auto' }).run.dtype).toBe('float16');
    expect(half({ enabled: 'auto' }, { deepspeed: { bf16: { enabled: false } } }).run.dtype).toBe('float16');
    expect(half({ enabled: 'auto' }, { cluster: {} }).run.dtype).toBe('float32');
  });

  test('keeps every setting of its scale', () => {
    const settings = { loss_scale_window: 500, initial_scale_power: 20, hysteresis: 3, consecutive_hysteresis: true, min_loss_scale: 8 };
    expect(half({ enabled: true, loss_scale: 0, ...settings }).deepspeed.config.fp16).toEqual({
      enabled: true,
      loss_scale: 0,
      ...settings,
    });
    expect(half({ enabled: true, loss_scale: 0.5, loss_scale_window: 0 }).deepspeed.config.fp16).toMatchObject({ loss_scale: 0.5 });
  });

  test('is for GPUs, and for CPUs that say so', () => {
    for (const error of [
      refusal({ fp16: { enabled: true } }, {}, {}),
      refusal({}, HALF, {}),
      refusal({}, HALF, { ...GPU, float16: false }),
    ]) {
      expect(error).toMatchObject({ code: 'unsupported', message: expect.stringContaining('DeepSpeed does not train in fp16 on 4x ') });
      expect(error.hint).toMatch(/'bfloat16' or 'float32'/);
    }
    expect(specs({ run: HALF, cluster: { float16: true } }).run.dtype).toBe('float16');
  });

  test.each([
    [{ bf16: { enabled: true }, fp16: { enabled: true } }, {}, 'both true'],
    [{ fp16: { enabled: true } }, { dtype: 'bfloat16' }, "run.dtype is 'bfloat16' but deepspeed.fp16.enabled is true"],
    [{ fp16: { enabled: false } }, HALF, "run.dtype is 'float16' but deepspeed.fp16.enabled is false"],
    [{ bf16: { enabled: true } }, HALF, "run.dtype is 'float16' but deepspeed.bf16.enabled is true"],
    [{ fp16: { enabled: true } }, { lossScale: 128 }, "run.lossScale is 128, but in float16 the loss scale is DeepSpeed's"],
  ])('%j with %j is a conflict', (deepspeed, run, message) => {
    expect(refusal(deepspeed, run)).toMatchObject({ code: 'conflict', message: expect.stringContaining(message) });
  });

  test('a hint of a static scale works', () => {
    expect(refusal({ fp16: { enabled: true } }, { lossScale: 128 }).hint).toContain('deepspeed.fp16.loss_scale to 128');
    expect(half({ enabled: true, loss_scale: 128 }).run.lossScale).toBe(1);
  });
});

describe('an fp16 section', () => {
  test.each([
    [{ loss_scale: -1 }, 'loss_scale: expected 0, for a dynamic scale, or more, found -1'],
    [{ loss_scale_window: 0 }, 'loss_scale_window: expected at least 1, found 0'],
    [{ hysteresis: 0 }, 'hysteresis: expected at least 1, found 0'],
    [{ min_loss_scale: -2 }, 'min_loss_scale: expected at least 1, found -2'],
    [{ initial_scale_power: -1 }, 'initial_scale_power: expected 0 to 127, found -1'],
    [{ initial_scale_power: 128 }, 'initial_scale_power: expected 0 to 127, found 128'],
    [{ initial_scale_power: 3, min_loss_scale: 9 }, 'min_loss_scale 9 is above the initial scale 2^3'],
    [{ loss_scale: true }, 'loss_scale: expected a number, found true'],
    [{ hysteresis: 1.5 }, 'hysteresis: expected a whole number, found 1.5'],
  ])('%j is refused', (fp16, message) => {
    expect(refusal({ fp16: { enabled: true, ...fp16 } })).toMatchObject({ code: 'invalid-value', message: `deepspeed.fp16.${message}` });
  });

  test.each([
    [{ loss_scale: -1 }, 0],
    [{ loss_scale_window: 0 }, 1],
    [{ hysteresis: -3 }, 1],
    [{ min_loss_scale: -2 }, 1],
    [{ initial_scale_power: -1 }, 0],
    [{ initial_scale_power: 128 }, 127],
  ])('the hint for %j works', (fp16, works) => {
    const [key = ''] = Object.keys(fp16);
    expect(refusal({ fp16: { enabled: true, ...fp16 } }).hint).toBe(`set fp16.${key} to ${works}, or leave it out`);
    expect(() => half({ enabled: true, [key]: works })).not.toThrow();
    expect(() => half({ enabled: true })).not.toThrow();
  });

  test('the hint for a floor above the initial scale works', () => {
    expect(refusal({ fp16: { enabled: true, initial_scale_power: 3, min_loss_scale: 9 } }).hint).toBe(
      'set min_loss_scale to 1, or initial_scale_power to 4',
    );
    expect(() => half({ enabled: true, initial_scale_power: 4, min_loss_scale: 9 })).not.toThrow();
  });

  test.each([[{ fp16_master_weights_and_grads: true }, 'set it to false']])('%j is refused by name, with what works', (fp16, hint) => {
    const [key = ''] = Object.keys(fp16);
    expect(refusal({ fp16: { enabled: true, ...fp16 } })).toMatchObject({ code: 'unsupported', details: { path: `fp16.${key}` } });
    expect(refusal({ fp16: { enabled: true, ...fp16 } }).hint).toContain(hint);
    expect(() => half({ enabled: true, [key]: false })).not.toThrow();
  });

  test("a misspelt key is named, and 'auto' is the default", () => {
    expect(refusal({ fp16: { enabled: true, histeresis: 2 } })).toMatchObject({ code: 'unknown-key', hint: "did you mean 'hysteresis'?" });
    expect(half({ enabled: true, loss_scale: 'auto' }).deepspeed.config.fp16).toEqual({ enabled: true });
  });

  test('what DeepSpeed does not read of a scale that is not in use is not checked', () => {
    expect(() => half({ enabled: false, hysteresis: 0, loss_scale_window: 0 })).not.toThrow();
    expect(() => half({ enabled: true, loss_scale: 8, min_loss_scale: 0 })).not.toThrow();
  });
});

describe('gradients accumulate in the dtype of the weights, or under ZeRO in fp32', () => {
  const accumulated = (as: string, dtype: string, stage: number) => ({
    deepspeed: { data_types: { grad_accum_dtype: as }, zero_optimization: { stage } },
    run: { dtype },
  });

  test.each([
    ['fp16', 'float16', 0],
    ['fp16', 'float16', 3],
    ['fp32', 'float16', 1],
    ['fp32', 'bfloat16', 2],
    ['bf16', 'bfloat16', 0],
    ['fp32', 'float32', 0],
  ])('%s of %s at stage %i', (as, dtype, stage) => {
    expect(() => specs({ cluster: GPU, ...accumulated(as, dtype, stage) })).not.toThrow();
  });

  test.each([
    ['fp32', 'float16', 0, "use 'fp16'"],
    ['fp32', 'bfloat16', 0, "use 'bf16'"],
    ['bf16', 'float16', 2, "use 'fp16' or 'fp32'"],
    ['bf16', 'float32', 1, "use 'fp32'"],
  ])('not %s of %s at stage %i', (as, dtype, stage, hint) => {
    const { deepspeed, run } = accumulated(as, dtype, stage);
    expect(refusal(deepspeed, run)).toMatchObject({ code: 'unsupported', hint, details: { path: 'data_types.grad_accum_dtype' } });
  });
});
