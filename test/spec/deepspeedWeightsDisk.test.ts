import { describe, expect, test } from 'vitest';
import { deepspeedRemarks } from '../../src/spec/deepspeedRemarks.js';
import { errorOf, specs } from './inputs.js';

const onDisk = (more: object = {}, zero: object = {}, config: object = {}): object => ({
  zero_optimization: { stage: 3, ...zero, offload_param: { device: 'nvme', nvme_path: '/nvme', ...more } },
  ...config,
});
const remarksOf = (deepspeed: object): readonly string[] => {
  const { deepspeed: parsed, run } = specs({ deepspeed });
  return deepspeedRemarks(parsed.config, run);
};
const STATES = { device: 'nvme', nvme_path: '/nvme' };

describe('offload_param to nvme', () => {
  test('is passed on, beside states on the same disk and elsewhere', () => {
    expect(specs({ deepspeed: onDisk() }).deepspeed.config).toMatchObject(onDisk());
    const both = onDisk({}, { offload_optimizer: STATES });
    expect(specs({ deepspeed: both }).deepspeed.config).toMatchObject({ ...both, fpdt: { diskBytesPerParameter: 16 } });
    expect(remarksOf(onDisk())).toEqual([expect.stringContaining('takes disk at every rank in nvme_path')]);
  });

  test.each([
    [onDisk({ nvme_path: null }), 'offload_param.nvme_path', 'missing-key', /"nvme_path": "\/FOLDER"/],
    [onDisk({ nvme_path: 'scratch' }), 'offload_param.nvme_path', 'invalid-value', /"nvme_path": "\/FOLDER"/],
    [onDisk({ buffer_count: 0 }), 'offload_param.buffer_count', 'invalid-value', /buffer_count=5 works/],
    [onDisk({}, { zero_hpz_partition_size: 2 }), 'zero_hpz_partition_size', 'unsupported', /device "cpu"/],
    [onDisk({}, { offload_optimizer: { ...STATES, fast_init: true } }), 'offload_optimizer.fast_init', 'unsupported', /set it to false/],
  ])('%j is refused', (deepspeed, key, code, hint) => {
    const found = errorOf(() => specs({ deepspeed }));
    expect(found).toMatchObject({ code, details: { path: `zero_optimization.${key}` } });
    expect(found.hint).toMatch(hint);
  });

  test.each([
    [{ use_gds: true }, 'unsupported', /aio.use_gds: true is not supported/],
    [{ block_size: null }, 'invalid-value', /aio.block_size: expected a whole number/],
    [{ intra_op_parallelism: null }, 'invalid-value', /aio.intra_op_parallelism: expected a whole number/],
  ])('beside aio %j it is refused', (aio, code, message) => {
    const found = errorOf(() => specs({ deepspeed: onDisk({}, {}, { aio }) }));
    expect(found.code).toBe(code);
    expect(found.message).toMatch(message);
    expect(specs({ deepspeed: { zero_optimization: { stage: 3 }, aio } }).run.zeroStage).toBe(3);
  });

  test('both folders are looked at', () => {
    const found = errorOf(() => specs({ deepspeed: onDisk({ nvme_path: '' }, { offload_optimizer: { device: 'nvme' } }) }));
    expect(found.details).toMatchObject({
      problems: [{ path: 'zero_optimization.offload_optimizer.nvme_path' }, { path: 'zero_optimization.offload_param.nvme_path' }],
    });
  });

  test.each([1, 2])('at stage %i it has no effect, and needs no folder', (stage) => {
    expect(remarksOf(onDisk({ nvme_path: null }, { stage }))).toEqual([expect.stringContaining('has no effect')]);
  });
});
