import { describe, expect, test } from 'vitest';
import { errorOf, specs } from './inputs.js';

const config = (deepspeed: object, run: object = {}, cluster: object = {}) => specs({ deepspeed, run, cluster }).deepspeed.config;
const refusal = (deepspeed: object, run: object = {}, cluster: object = {}) => errorOf(() => specs({ deepspeed, run, cluster }));

describe('misspelt keys', () => {
  test.each([
    [{ zero_optimisation: { stage: 3 } }, 'deepspeed', 'zero_optimization'],
    [{ zero_optimization: { stge: 3 } }, 'deepspeed.zero_optimization', 'stage'],
    [{ zero_optimization: { stage: 3, offload_optimizer: { devise: 'cpu' } } }, 'deepspeed.zero_optimization.offload_optimizer', 'device'],
    [{ bf16: { enable: true } }, 'deepspeed.bf16', 'enabled'],
    [{ checkpoint: { parallel_write: { pipeline_stag: true } } }, 'deepspeed.checkpoint.parallel_write', 'pipeline_stage'],
    [{ gradient_acumulation_steps: 2 }, 'deepspeed', 'gradient_accumulation_steps'],
  ])('%j', (given, path, nearest) => {
    const error = refusal(given);
    expect(error).toMatchObject({ code: 'unknown-key', details: { path, nearest } });
    expect(error.hint).toBe(`did you mean '${nearest}'?`);
  });

  test('a key near to nothing lists what is known, and inherited names are no keys', () => {
    expect(refusal({ qqqqqqqqqqqq: 1 }).hint).toContain('zero_optimization');
    expect(refusal({ toString: 1 }).code).toBe('unknown-key');
  });
});

test.each([
  [{ zero_optimization: { stage: '3' } }, 'deepspeed.zero_optimization.stage: expected a whole number, found "3"'],
  [{ gradient_clipping: true }, 'deepspeed.gradient_clipping: expected a number, found true'],
  [{ zero_optimization: true }, 'deepspeed.zero_optimization: expected an object, found true'],
  [{ optimizer: 'AdamW' }, 'deepspeed.optimizer: expected an object, found "AdamW"'],
  [
    { zero_optimization: { reduce_bucket_size: 0 } },
    'deepspeed.zero_optimization.reduce_bucket_size: expected a whole number > 0, found 0',
  ],
  [{ zero_optimization: { sub_group_size: -5 } }, 'deepspeed.zero_optimization.sub_group_size: expected a whole number >= 0, found -5'],
  [
    { zero_optimization: { offload_optimizer: { cpuadam_cores_perc: 1.5 } } },
    'deepspeed.zero_optimization.offload_optimizer.cpuadam_cores_perc: expected a number from 0 to 1, found 1.5',
  ],
])('a wrong type or a value out of bounds %j is named with path and expectation', (given, message) => {
  const hint = `give ${/expected (.*), found/.exec(message)?.[1]}`;
  expect(refusal(given)).toMatchObject({ code: 'invalid-value', message, hint });
});

describe('batch', () => {
  test('accumulation follows from the batch size in sequences, counted by replicas', () => {
    const { run, deepspeed } = specs({ run: { sequenceParallelSize: 2 }, deepspeed: { train_batch_size: 6 } });
    expect([run.dataParallelSize, run.gradientAccumulationSteps]).toEqual([2, 3]);
    expect(deepspeed.config).toMatchObject({ train_micro_batch_size_per_gpu: 1, gradient_accumulation_steps: 3 });
    expect(deepspeed.config).not.toHaveProperty('train_batch_size');
  });

  test("'auto' is derived", () => {
    const all = { train_batch_size: 'auto', train_micro_batch_size_per_gpu: 'auto', gradient_accumulation_steps: 'auto' };
    expect(specs({ deepspeed: all }).run.gradientAccumulationSteps).toBe(1);
    expect(specs({ deepspeed: { ...all, gradient_accumulation_steps: 4 } }).run.gradientAccumulationSteps).toBe(4);
  });

  test.each([{ train_batch_size: 5, gradient_accumulation_steps: 2 }, { train_batch_size: 3 }, { train_batch_size: 1 }])(
    '%j does not add up on two replicas',
    (given) => {
      const error = refusal(given, { sequenceParallelSize: 2 });
      expect(error.code).toBe('batch-mismatch');
      const works = Number(/train_batch_size=(\d+)/.exec(error.hint ?? '')?.[1]);
      expect(() => config({ ...given, train_batch_size: works }, { sequenceParallelSize: 2 })).not.toThrow();
    },
  );

  test('micro-batches are one sequence, and counts at least one', () => {
    expect(refusal({ train_micro_batch_size_per_gpu: 2 }).code).toBe('unsupported');
    expect(refusal({ gradient_accumulation_steps: 0 }).code).toBe('invalid-value');
  });
});

describe('what DeepSpeed would choose in silence is written out', () => {
  test('gradient clipping, ZeRO stage and dtype', () => {
    expect(config({})).toMatchObject({ gradient_clipping: 1, zero_optimization: { stage: 0 }, bf16: { enabled: false } });
    expect(config({ gradient_clipping: 0 })).toMatchObject({ gradient_clipping: 0 });
    expect(config({ gradient_clipping: 'auto' })).toMatchObject({ gradient_clipping: 1 });
  });

  test("Hugging Face's 'auto' values", () => {
    const zero = { stage: 3, reduce_bucket_size: 'auto', stage3_prefetch_bucket_size: 'auto', stage3_param_persistence_threshold: 'auto' };
    expect(config({ zero_optimization: zero })).toMatchObject({
      zero_optimization: { reduce_bucket_size: 4096, stage3_prefetch_bucket_size: 3686, stage3_param_persistence_threshold: 640 },
    });
    const scheduler = { type: 'WarmupLR', params: { warmup_max_lr: 'auto' } };
    expect(config({ optimizer: { type: 'AdamW', params: { lr: 3e-4, betas: 'auto' } }, scheduler })).toMatchObject({
      optimizer: { params: { lr: 3e-4, betas: [0.9, 0.999] } },
      scheduler: { params: { warmup_max_lr: 3e-4 } },
    });
    expect(refusal({ zero_optimization: { sub_group_size: 'auto' } }).code).toBe('unresolved-auto');
  });

  test('the user object is left as it was, and short ZeRO-3 names become long', () => {
    const given = Object.freeze({ zero_optimization: Object.freeze({ stage: 3, max_live_parameters: 0 }), train_batch_size: 1 });
    expect(config(given)).toMatchObject({ zero_optimization: { stage: 3, stage3_max_live_parameters: 0 } });
    expect(given.zero_optimization.max_live_parameters).toBe(0);
  });
});

describe('dtype', () => {
  test('follows the bf16 block, the run, or the device', () => {
    expect(specs({ deepspeed: { bf16: { enabled: true } } }).run.dtype).toBe('bfloat16');
    expect(specs({ deepspeed: { bf16: { enabled: 'auto' } }, run: { dtype: 'bfloat16' } }).run.dtype).toBe('bfloat16');
    expect(specs().run.dtype).toBe('float32');
    expect(specs({ cluster: { gpu: 'h100-80gb' } }).run.dtype).toBe('bfloat16');
    expect(config({ bfloat16: { enabled: true } })).toMatchObject({ bf16: { enabled: true } });
  });

  test('conflicts are refused', () => {
    expect(refusal({ bf16: { enabled: true } }, { dtype: 'float32' }).code).toBe('conflict');
    expect(refusal({ bf16: { enabled: false } }, { dtype: 'bfloat16' }).code).toBe('conflict');
  });
});

test('sequence parallel size of the config is taken, and must agree', () => {
  expect(specs({ deepspeed: { sequence_parallel_size: 2 } }).run).toMatchObject({ sequenceParallelSize: 2, dataParallelSize: 2 });
  expect(config({ sequence_parallel_size: 2, data_parallel_size: 2 })).not.toHaveProperty('sequence_parallel_size');
  expect(refusal({ sequence_parallel_size: 2 }, { sequenceParallelSize: 4 }).code).toBe('conflict');
  expect(refusal({ data_parallel_size: 3 }).code).toBe('conflict');
});

test.each([
  { zero_optimization: { stage: 4 } },
  { zero_optimization: { stage: 3, offload_param: { device: 'cpu' } } },
  { zero_optimization: { stage: 3, offload_optimizer: { device: 'nvme' } } },
  { zero_optimization: { stage: 0, offload_optimizer: { device: 'cpu' } } },
  { zero_optimization: { stage: 3, zero_quantized_gradients: true } },
  { zero_optimization: { stage: 3, zero_hpz_partition_size: 2 } },
  { zero_optimization: { stage: 3, mics_shard_size: 2 } },
  { optimizer: { type: 'Lion', params: { lr: 1e-4 } } },
  { gradient_allreduce_op: 'sum' },
  { amp: { enabled: true } },
  { tensor_parallel: { autotp_size: 2 } },
])('%j is refused by name', (given) => {
  expect(refusal(given)).toMatchObject({ code: 'unsupported' });
});

test.each([
  { zero_optimization: { stage: 3, offload_param: { device: 'none' }, offload_optimizer: null } },
  { zero_optimization: { stage: 2, offload_optimizer: { device: 'cpu', pin_memory: true } } },
  { fp16: { enabled: false, loss_scale: 0 }, activation_checkpointing: { cpu_checkpointing: true } },
  { steps_per_print: 10, wall_clock_breakdown: false, comms_logger: { enabled: false } },
])('%j is passed on', (given) => {
  expect(config(given)).toMatchObject(given);
});
