import { describe, expect, it } from 'vitest';
import { capture } from './capture.js';

describe('fpdt', () => {
  it('prints its version and help', async () => {
    expect(await capture('--version')).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+$/) as string });
    const { exitCode, stdout } = await capture('--help');
    expect(exitCode).toBe(0);
    for (const command of ['plan', 'max-seq', 'min-gpus', 'min-host', 'run', 'show', 'diff', 'doctor']) expect(stdout).toContain(command);
  });

  it('suggests the nearest command', async () => {
    expect(await capture('shwo')).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('Did you mean show?') as string });
  });
});
