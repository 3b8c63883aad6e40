/** What DeepSpeed derives from a ds_config, and where its own arithmetic or engine says no. */
import { describe, expect, test } from 'vitest';
import { errorOf, specs } from './inputs.js';

const SHARED = { sequenceParallelSize: 4, dataParallelSize: 1 };
const parsed = (deepspeed: object) => specs({ cluster: { gpus: 4 }, run: SHARED, deepspeed }).deepspeed.config;
const refusal = (deepspeed: object) => errorOf(() => parsed(deepspeed));

describe('accumulation steps', () => {
  test('are whole: a batch that micro-batches do not share out is refused, as DeepSpeed refuses it', () => {
    const given = { train_batch_size: 30, train_micro_batch_size_per_gpu: 4 };
    const error = refusal(given);
    expect(error.code).toBe('batch-mismatch');
    const works = Number(/train_batch_size=(\d+)/.exec(error.hint ?? '')?.[1]);
    expect(parsed({ ...given, train_batch_size: works }).gradient_accumulation_steps).toBe(works);
  });

  test.each([
    [{ train_batch_size: 1e20 }, 'train_batch_size: a step has at most 2147483647 sequences, found 100000000000000000000'],
    [{ train_micro_batch_size_per_gpu: 2 ** 31 }, 'train_micro_batch_size_per_gpu: a step has at most'],
    [
      { train_micro_batch_size_per_gpu: 2 ** 16, gradient_accumulation_steps: 2 ** 16 },
      'gradient_accumulation_steps: a step has at most 2147483647 sequences, found 65536',
    ],
  ])('are not more than can be counted: %j', (given, message) => {
    expect(refusal(given).message).toContain(message);
  });
});

describe('optimizer and scheduler', () => {
  test('a scheduler without a type is none, which is said', () => {
    const config = parsed({ scheduler: { params: { warmup_num_steps: 10 } } });
    expect(config).not.toHaveProperty('scheduler');
    expect(JSON.stringify(config)).toContain('deepspeed.scheduler has no type');
    expect(parsed({ scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 10 } } })).toHaveProperty('scheduler.type', 'WarmupLR');
  });

  test('a list of rates, one for each group of weights, is for schedulers alone', () => {
    const optimizer = { type: 'AdamW', params: { lr: [1e-3] } };
    expect(refusal({ optimizer }).message).toContain('deepspeed.optimizer.params.lr: expected a number, found [0.001]');
    const scheduler = { type: 'WarmupLR', params: { warmup_max_lr: [1e-3] } };
    expect(parsed({ scheduler })).toMatchObject({ scheduler });
  });

  test('"auto" for all parameters of an optimizer is refused: there is nobody who fills it', () => {
    expect(refusal({ optimizer: { type: 'AdamW', params: 'auto' } })).toMatchObject({
      code: 'unresolved-auto',
      message: 'deepspeed.optimizer.params: expected an object or null, found "auto"',
    });
  });
});
