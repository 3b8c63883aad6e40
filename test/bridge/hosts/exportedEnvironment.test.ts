import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { exportedEnvironment } from '../../../src/bridge/hosts/exportedEnvironment.js';
import { makeFolder } from '../folder.js';

test('variables of libraries and of .deepspeed_env are sent, those of this host and its secrets are not', async () => {
  const [home, here] = [await makeFolder(), await makeFolder()];
  writeFileSync(join(home, '.deepspeed_env'), 'NCCL_DEBUG=WARN\nMY=1\n');
  writeFileSync(join(here, '.deepspeed_env'), 'NCCL_DEBUG=INFO=2\n\n');
  const environment = { NCCL_IB_HCA: 'mlx5', PATH: '/bin', AWS_SECRET: 'x', FPDT_CONTROLLER_PID: '7', PYTHONPATH: '/mine' };
  expect(exportedEnvironment(environment, [home, here])).toEqual({
    NCCL_IB_HCA: 'mlx5',
    PYTHONPATH: '/mine',
    NCCL_DEBUG: 'INFO=2',
    MY: '1',
  });
  writeFileSync(join(here, 'other'), 'NCCL_DEBUG INFO\n');
  expect(() => exportedEnvironment({ DS_ENV_FILE: 'other' }, [here])).toThrow(/other:1: 'NCCL_DEBUG INFO' sets no variable$/);
});
