import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseSpecs } from '../../src/catalog/index.js';
import { errorOf, LLAMA, specs } from './inputs.js';

const config = (deepspeed: object, run: object = {}, cluster: object = {}) => specs({ deepspeed, run, cluster }).deepspeed.config;
const remarksOf = (deepspeed: object, run: object = {}, cluster: object = {}): unknown =>
  (config(deepspeed, run, cluster).fpdt as { readonly remarks?: unknown } | undefined)?.remarks ?? [];
const refusal = (deepspeed: object, run: object = {}, cluster: object = {}) => errorOf(() => specs({ deepspeed, run, cluster }));

describe('misspelt keys', () => {
  test.each([
    [{ zero_optimization: { stge: 3 } }, 'deepspeed.zero_optimization', 'stage'],
    [{ zero_optimization: { stage: 3, offload_optimizer: { devise: 'cpu' } } }, 'deepspeed.zero_optimization.offload_optimizer', 'device'],
    [{ bf16: { enable: true } }, 'deepspeed.bf16', 'enabled'],
    [{ optimizer: { type: 'AdamW', params: { weight_decai: 0 } } }, 'deepspeed.optimizer.params', 'weight_decay'],
    [{ scheduler: { type: 'WarmupLR', params: { warm_num_steps: 0 } } }, 'deepspeed.scheduler.params', 'warmup_num_steps'],
  ])('%j', (given, path, nearest) => {
    const error = refusal(given);
    expect(error).toMatchObject({ code: 'unknown-key', details: { path, nearest } });
    expect(error.hint).toBe(`did you mean '${nearest}'?`);
  });

  test('a key near to nothing lists what is known, and inherited names are no keys', () => {
    expect(refusal({ bf16: { qqqqqqqqqqqq: 1 } }).hint).toContain('enabled');
    expect(refusal({ bf16: { toString: 1 } }).code).toBe('unknown-key');
  });

  test('a key of another section is said to belong there', () => {
    expect(refusal({ zero_optimization: { gradient_clipping: 1 } }).hint).toBe("'gradient_clipping' belongs to the top level");
    expect(refusal({ fp16: { reduce_bucket_size: 1 } }).hint).toBe("'reduce_bucket_size' belongs in zero_optimization");
  });

  test.each([
    [
      { zero_optimisation: { stage: 3 } },
      "zero_optimisation has no effect: DeepSpeed 0.19.8 does not know the key; did you mean 'zero_optimization'?",
    ],
    [{ gradient_acumulation_steps: 2 }, "did you mean 'gradient_accumulation_steps'?"],
    [{ stage: 3 }, "'stage' belongs in zero_optimization"],
    [
      { flops_profiler: { profile_stp: 1 } },
      "flops_profiler.profile_stp has no effect: DeepSpeed 0.19.8 does not know the key; did you mean 'profile_step'?",
    ],
    [{ qqqqqqqqqqqqqq: 1 }, 'qqqqqqqqqqqqqq has no effect: DeepSpeed 0.19.8 does not know the key'],
  ])('where DeepSpeed ignores keys %j is remarked on', (given, remark) => {
    expect(remarksOf(given)).toEqual([expect.stringContaining(remark)]);
  });
});

test.each([
  [{ zero_optimization: { stage: 4 } }, 'deepspeed.zero_optimization.stage: expected 0, 1, 2, 3, found 4'],
  [{ zero_optimization: { stage: 'three' } }, 'deepspeed.zero_optimization.stage: expected 0, 1, 2, 3, found "three"'],
  [{ gradient_clipping: true }, 'deepspeed.gradient_clipping: expected a number or null, found true'],
  [{ gradient_clipping: -1 }, 'deepspeed.gradient_clipping: expected at least 0, found -1'],
  [{ zero_optimization: null }, 'deepspeed.zero_optimization: expected an object, found null'],
  [{ communication_data_type: 'auto' }, 'deepspeed.communication_data_type: expected a text or null, found "auto"'],
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
  [{ optimizer: { type: 'AdamW', params: { lr: null } } }, 'deepspeed.optimizer.params.lr: expected a number, found null'],
  [{ optimizer: { type: 'AdamW', params: { betas: null } } }, 'deepspeed.optimizer.params.betas: expected a list, found null'],
  [
    { scheduler: { type: 'WarmupDecayLR', params: { total_num_steps: null } } },
    'deepspeed.scheduler.params.total_num_steps: expected a value, found null',
  ],
  [
    { scheduler: { type: 'WarmupLR', params: { warmup_num_steps: null } } },
    'deepspeed.scheduler.params.warmup_num_steps: expected a number, found null',
  ],
])('a wrong type or a value out of bounds %j is named with path and expectation', (given, message) => {
  const [, expected = ''] = /expected (.*), found/.exec(message) ?? [];
  expect(refusal(given)).toMatchObject({ code: message.endsWith('"auto"') ? 'unresolved-auto' : 'invalid-value', message });
  expect(refusal(given).hint).toContain(expected.replace('at least 0', '0 or more'));
});

test('all problems of a file are told at once, with their lines', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'fpdt-ds-')), 'ds.json');
  writeFileSync(
    path,
    '{\n "bf16": {"enable": true}, // typo\n "amp": {},\n "zero_optimization": {\n  "stage": 3,\n  "reduce_bucket_size": -1,\n }\n}',
  );
  const error = errorOf(() => parseSpecs({ model: LLAMA, cluster: { gpus: 4, gpu: 'cpu' }, run: { seqLen: 1024 }, deepspeed: path }));
  expect(error.message.split('\n')).toEqual([
    'deepspeed: 3 problems',
    "  deepspeed.bf16.enable (line 2): DeepSpeed refuses keys that it does not know in bf16; did you mean 'enabled'?",
    '  deepspeed.amp (line 3): DeepSpeed 0.19.8 has removed this; delete the key',
    '  deepspeed.zero_optimization.reduce_bucket_size (line 6): expected a whole number > 0, found -1; give a whole number > 0',
  ]);
  expect(error).toMatchObject({ code: 'invalid-ds-config', details: { problems: [{ line: 2 }, { line: 3 }, { line: 6 }] } });
  rmSync(dirname(path), { recursive: true });
});

test('base64 of a config is read as DeepSpeed reads it', () => {
  const text = Buffer.from('{"gradient_accumulation_steps": 3, # three\n}').toString('base64url');
  const given = { model: LLAMA, cluster: { gpus: 4, gpu: 'cpu' }, run: { seqLen: 1024 } };
  expect(parseSpecs({ ...given, deepspeed: text }).run.gradientAccumulationSteps).toBe(3);
  expect(errorOf(() => parseSpecs({ ...given, deepspeed: 'nosuchfile' })).code).toBe('file-not-readable');
  expect(errorOf(() => parseSpecs({ ...given, deepspeed: Buffer.from('{"a": }').toString('base64url') })).code).toBe('not-json');
});

test.each([
  [{ zero_optimization: { stage: '3', overlap_comm: 'yes', reduce_bucket_size: '5e8' } }, undefined],
  [
    { zero_optimization: { stage: '3', overlap_comm: 'yes', reduce_bucket_size: '500000000' } },
    { stage: 3, overlap_comm: true, reduce_bucket_size: 5e8 },
  ],
  [
    { zero_optimization: true, allgather_size: 7 },
    { stage: 1, allgather_bucket_size: 7 },
  ],
  [{ zero_optimization: { stage: 2, cpu_offload: true } }, { stage: 2, offload_optimizer: { device: 'cpu' } }],
  [{ zero_optimization: { stage: 2, cpu_offload: false } }, { stage: 2 }],
  [
    { zero_optimization: { stage: 3, stage3_gather_fp16_weights_on_model_save: true } },
    { stage: 3, stage3_gather_16bit_weights_on_model_save: true },
  ],
  [{ zero_optimization: { stage: 3, sub_group_size: 'auto', overlap_comm: null, offload_param: null } }, { stage: 3 }],
])('%j is what DeepSpeed makes of it', (given, zero) => {
  if (zero === undefined) expect(refusal(given).code).toBe('invalid-value');
  else expect(config(given).zero_optimization).toEqual(zero);
});

test.each([
  { zero_optimization: { max_live_parameters: 1, stage3_max_live_parameters: 1 } },
  { zero_optimization: { stage: 2, cpu_offload: true, offload_optimizer: { device: 'cpu' } } },
])('both names of one key are refused: %j', (given) => {
  expect(refusal(given)).toMatchObject({ code: 'duplicate-key' });
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

  test.each([
    [{ train_micro_batch_size_per_gpu: 2 }, 2],
    [{ train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 3 }, 6],
    [{ train_micro_batch_size_per_gpu: 2, train_batch_size: 8 }, 4],
    [{ train_batch_size: 8, gradient_accumulation_steps: 2 }, 4],
    [{ train_batch_size: 8, train_micro_batch_size_per_gpu: null, gradient_accumulation_steps: null }, 4],
  ])('a micro-batch of several sequences is as many micro-steps: %j', (given, steps) => {
    expect(specs({ deepspeed: given, run: { sequenceParallelSize: 2 } }).run.gradientAccumulationSteps).toBe(steps);
  });

  test('it is said', () => {
    expect(remarksOf({ train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 3 })).toEqual([
      'deepspeed.train_micro_batch_size_per_gpu=2 is run as 2 micro-steps of one sequence each, 6 of them a step: the same mean over all target tokens',
    ]);
  });

  test('a batch given in full says how many replicas there are', () => {
    const full = { train_batch_size: 12, train_micro_batch_size_per_gpu: 3, gradient_accumulation_steps: 2 };
    expect(specs({ deepspeed: full }).run).toMatchObject({ sequenceParallelSize: 2, dataParallelSize: 2, gradientAccumulationSteps: 6 });
    expect(refusal(full, { sequenceParallelSize: 4 }).code).toBe('batch-mismatch');
  });

  test('counts are at least one', () => {
    expect(refusal({ gradient_accumulation_steps: 0 }).code).toBe('invalid-value');
    expect(refusal({ train_batch_size: -4 }).message).toContain('train_batch_size: expected at least 1, found -4');
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
    expect(remarksOf({ zero_optimization: zero, optimizer: { type: 'AdamW', params: { lr: 'auto' } } })).toEqual([
      'deepspeed: "auto" is what Hugging Face\'s Trainer fills: zero_optimization.reduce_bucket_size=4096, ' +
        'zero_optimization.stage3_prefetch_bucket_size=3686, zero_optimization.stage3_param_persistence_threshold=640, optimizer.params.lr=0.00005',
    ]);
    expect(remarksOf({ zero_optimization: { ...zero, stage: 2 }, wall_clock_breakdown: false })).toEqual([
      'deepspeed: "auto" is DeepSpeed\'s default where nothing fills it: zero_optimization.stage3_prefetch_bucket_size=50000000, ' +
        'zero_optimization.stage3_param_persistence_threshold=100000',
      'deepspeed: "auto" is what Hugging Face\'s Trainer fills: zero_optimization.reduce_bucket_size=4096',
    ]);
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
    expect(specs({ cluster: { gpu: 'h100-80gb' }, deepspeed: { bf16: { enabled: 'auto' } } }).run.dtype).toBe('bfloat16');
    expect(config({ bfloat16: { enabled: true } })).toMatchObject({ bf16: { enabled: true } });
  });

  test('is fp32 where a ds_config has neither section on, as with DeepSpeed', () => {
    const given = { zero_optimization: { stage: 3 } };
    expect(specs({ cluster: { gpu: 'h100-80gb' }, deepspeed: {} }).run.dtype).toBe('float32');
    expect(specs({ cluster: { gpu: 'h100-80gb' }, deepspeed: given }).run.dtype).toBe('float32');
    expect(remarksOf(given, {}, { gpu: 'h100-80gb' })).toEqual([expect.stringContaining('neither bf16 nor fp16 enabled')]);
    expect(specs({ cluster: { gpu: 'h100-80gb' }, run: { dtype: 'bfloat16' }, deepspeed: given }).run.dtype).toBe('bfloat16');
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
  { zero_optimization: { stage: 0, offload_optimizer: { device: 'cpu' } } },
  { zero_optimization: { stage: 3, zero_quantized_gradients: true } },
  { zero_optimization: { stage: 3, mics_shard_size: 2 } },
  { optimizer: { type: 'Lion', params: { lr: 1e-4 } } },
  { optimizer: { type: 'OneBitAdam', params: { lr: 1e-4 } } },
  { optimizer: { type: 'sgd', params: { lr: 1e-4 } } },
  { optimizer: { type: 'SGD', params: { lr: 1e-4 } }, zero_optimization: { stage: 1 } },
  { optimizer: { type: 'AdamW', params: { lr: 1e-4, max_grad_norm: 1 } } },
  { scheduler: { type: 'WarmupLr', params: {} } },
  { scheduler: { type: 'LambdaLR', params: {} } },
  { scheduler: { type: 'StepLR', params: { step_size: 3 } }, zero_optimization: { stage: 1 } },
  { gradient_clipping: null },
  { gradient_predivide_factor: null },
  { gradient_predivide_factor: 0 },
  { gradient_predivide_factor: 2, zero_optimization: { stage: 2 } },
  { gradient_predivide_factor: 2, zero_optimization: { stage: 3, reduce_scatter: false } },
  { gradient_predivide_factor: 4, zero_optimization: { stage: 1, reduce_scatter: false } },
  { prescale_gradients: true, zero_optimization: { stage: 3 } },
  { managed_gradient_accumulation: null },
  { gradient_allreduce_op: 'sum' },
  { amp: { enabled: true } },
  { tensor_parallel: { autotp_size: 2 } },
  { tensor_parallel: { tp: { tp_size: 2 } } },
])('%j is refused by name', (given) => {
  expect(refusal(given)).toMatchObject({ code: 'unsupported' });
});

test.each([
  { zero_optimization: { stage: 3, offload_param: { device: 'none' } } },
  { zero_optimization: { stage: 3, offload_param: { device: 'cpu', pin_memory: true }, offload_optimizer: { device: 'cpu' } } },
  { optimizer: { type: 'SGD', params: { lr: 1e-4, momentum: 0.9 } }, zero_optimization: { stage: 1 }, zero_allow_untested_optimizer: true },
  { optimizer: { type: 'Adagrad', params: { lr: 1e-4 } }, zero_optimization: { stage: 3 } },
  { optimizer: { type: 'SGD', params: { lr: 1e-4 } }, bf16: { enabled: true }, zero_optimization: { stage: 0 } },
  { prescale_gradients: true, gradient_predivide_factor: 4 },
  { prescale_gradients: true, zero_optimization: { stage: 3, reduce_scatter: false } },
  { gradient_predivide_factor: 4, zero_optimization: { stage: 1 } },
  { gradient_predivide_factor: 2, zero_optimization: { stage: 2, reduce_scatter: false } },
  { tensor_parallel: { autotp_size: 1 } },
  { scheduler: { type: 'StepLR', params: { step_size: 3 } } },
  { scheduler: { type: 'WarmupCosineLR', params: { total_num_steps: 9, warmup_num_steps: 1 } }, zero_optimization: { stage: 2 } },
  { zero_optimization: { stage: 2, offload_optimizer: { device: 'cpu', pin_memory: true } } },
  { fp16: { enabled: false, loss_scale: 0 }, activation_checkpointing: { cpu_checkpointing: true } },
  { optimizer: { type: 'AdamW', params: { lr: 1e-4, torch_adam: true, amsgrad: null, foreach: null } } },
  { steps_per_print: 10, wall_clock_breakdown: false, comms_logger: { enabled: false } },
])('%j is passed on', (given) => {
  expect(config(given)).toMatchObject(given);
});
