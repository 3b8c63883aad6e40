import { describe, expect, it } from 'vitest';
import { checksToText } from '../../src/cli/doctor.js';
import { capture } from './capture.js';

interface Report {
  readonly ok: boolean;
  readonly checks: readonly { readonly name: string; readonly status: string; readonly found: string; readonly hint?: string }[];
}

describe('fpdt doctor', () => {
  it('finds what a run needs', async () => {
    const { exitCode, stdout } = await capture('doctor', '--json');
    const report = JSON.parse(stdout) as Report;
    expect(report.checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['node', 'native addon', 'python', 'torch', 'deepspeed', 'transformers', 'pyzmq', 'gpu']),
    );
    expect(report.checks.filter(({ status }) => status === 'missing')).toEqual([]);
    expect(exitCode).toBe(0);
  });

  it('names what is missing and how to get it', async () => {
    const { exitCode, stdout } = await capture('doctor', '--python', '/nowhere/python', '--json');
    const report = JSON.parse(stdout) as Report;
    expect(exitCode).toBe(1);
    expect(report.ok).toBe(false);
    const python = report.checks.find(({ name }) => name === 'python');
    expect(python).toMatchObject({ status: 'missing', hint: expect.stringContaining('npm run setup') as string });
    expect(python?.found).toContain('/nowhere/python');
  });

  it('does not take any program for a Python', async () => {
    const { exitCode, stdout } = await capture('doctor', '--python', '/bin/false');
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/missing +python +\/bin\/false does not run/);
  });

  it('prints a hint under its check', () => {
    const text = checksToText([
      { name: 'node', status: 'ok', found: '20' },
      { name: 'torch', status: 'missing', found: 'not installed', hint: 'install it' },
    ]);
    expect(text).toBe('ok       node   20\nmissing  torch  not installed\n                hint: install it');
  });
});
