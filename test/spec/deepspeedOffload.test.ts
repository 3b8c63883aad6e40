import { describe, expect, test } from 'vitest';
import { deepspeedRemarks } from '../../src/spec/deepspeedRemarks.js';
import { errorOf, specs } from './inputs.js';

const onDisk = (more: object = {}, config: object = {}, stage = 3): object => ({
  zero_optimization: { stage, offload_optimizer: { device: 'nvme', nvme_path: '/nvme', ...more } },
  ...config,
});
const ADAGRAD = { optimizer: { type: 'Adagrad', params: { lr: 1e-3 } } };
const remarksOf = (deepspeed: object): readonly string[] => {
  const { deepspeed: parsed, run } = specs({ deepspeed });
  return deepspeedRemarks(parsed.config, run);
};

describe('offload_optimizer to nvme', () => {
  test('is passed on, with the bytes a parameter takes there', () => {
    expect(specs({ deepspeed: onDisk() }).deepspeed.config).toMatchObject({ ...onDisk(), fpdt: { diskBytesPerParameter: 16 } });
    expect(specs({ deepspeed: onDisk({}, ADAGRAD) }).deepspeed.config).toMatchObject({ fpdt: { diskBytesPerParameter: 12 } });
    expect(remarksOf(onDisk())).toEqual([expect.stringContaining('takes disk at every rank in nvme_path')]);
  });

  test.each([
    [{ nvme_path: null }, 'nvme_path', 'missing-key', /"nvme_path": "\/FOLDER"/],
    [{ nvme_path: '' }, 'nvme_path', 'missing-key', /"nvme_path": "\/FOLDER"/],
    [{ nvme_path: 'scratch' }, 'nvme_path', 'invalid-value', /"nvme_path": "\/FOLDER"/],
    [{ buffer_count: 3 }, 'buffer_count', 'invalid-value', /buffer_count=4 works/],
  ])('%j is refused', (more, key, code, hint) => {
    const found = errorOf(() => specs({ deepspeed: onDisk(more) }));
    expect(found).toMatchObject({ code, details: { path: `zero_optimization.offload_optimizer.${key}` } });
    expect(found.hint).toMatch(hint);
  });

  test('an optimizer with fewer states needs fewer buffers', () => {
    expect(specs({ deepspeed: onDisk({ buffer_count: 3 }, ADAGRAD) }).run.zeroStage).toBe(3);
  });

  test.each([1, 2])('at stage %i it is offloading to the host, and needs no folder', (stage) => {
    const given = onDisk({ nvme_path: null }, {}, stage);
    expect(specs({ deepspeed: given }).deepspeed.config).not.toHaveProperty('fpdt.diskBytesPerParameter');
    expect(remarksOf(given)).toEqual([expect.stringContaining('is as good as "cpu"')]);
  });

  test('at stage 0 there is nothing to offload', () => {
    expect(errorOf(() => specs({ deepspeed: onDisk({}, {}, 0) })).code).toBe('unsupported');
  });
});
