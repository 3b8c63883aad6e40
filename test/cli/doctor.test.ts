import { describe, expect, it } from 'vitest';
import { checksToText, doctorCommand, type DoctorSubject } from '../../src/cli/doctor.js';
import type { MachineFacts } from '../../src/machine/facts.js';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { capture } from './capture.js';

interface Report {
  readonly ok: boolean;
  readonly checks: readonly { readonly name: string; readonly status: string; readonly found: string; readonly hint?: string }[];
  readonly facts: MachineFacts | null;
}

async function doctorOf(subject: DoctorSubject): Promise<Report & { readonly exitCode: number }> {
  const out: string[] = [];
  const exitCode = await doctorCommand({ json: true }, { out: (text) => void out.push(text), err: () => undefined }, subject);
  return { ...(JSON.parse(out.join('\n')) as Report), exitCode };
}

describe('fpdt doctor', () => {
  it('finds what a run needs', async () => {
    const { exitCode, stdout } = await capture('doctor', '--json');
    const report = JSON.parse(stdout) as Report;
    expect(OUTPUT_SCHEMAS.doctor.parse(report)).toEqual(report);
    expect(report.checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        'node',
        'native addon',
        'zeromq',
        'system',
        'temporary folder',
        'shared memory',
        'python',
        'torch',
        'deepspeed',
        'transformers',
        'pyzmq',
        'gpu',
      ]),
    );
    expect(report.checks.map(({ name }) => name)).toEqual(expect.arrayContaining(['cpus', 'memory', 'memlock', 'huge pages', 'nvml']));
    expect(report.facts?.kind).toBe('machineFacts');
    expect(report.checks.filter(({ status }) => status === 'missing')).toEqual([]);
    expect(exitCode).toBe(0);
  });

  it('does without the native addon, and says what is not known', async () => {
    const { exitCode, ok, checks, facts } = await doctorOf({ loaded: { reason: 'the native addon is not built' } });
    expect({ exitCode, ok, facts }).toEqual({ exitCode: 0, ok: true, facts: null });
    expect(checks.find(({ name }) => name === 'native addon')).toEqual({
      name: 'native addon',
      status: 'warning',
      found: 'the native addon is not built: facts of this machine are not known, and long plans are verified more slowly',
      hint: expect.stringMatching(/^build it, with a C\+\+ compiler: node '\/.*\/native\/build\.mjs'$/) as string,
    });
    expect(checks.map(({ name }) => name)).not.toContain('memory');
  });

  it('has facts and judgement of the machine it is told to look at', async () => {
    const { exitCode, checks, facts } = await doctorOf({ sources: { nvmlLibrary: '/nowhere/nvml.so', procRoot: '/nowhere' } });
    expect(exitCode).toBe(0);
    expect(facts?.unknown['gpus']).toContain('/nowhere/nvml.so');
    expect(checks.find(({ name }) => name === 'nvml')).toMatchObject({ status: 'warning', found: facts?.unknown['gpus'] });
    expect(checks.find(({ name }) => name === 'memory')?.found).toContain('cannot read /nowhere/meminfo');
  });

  it('names what is missing and how to get it', async () => {
    const { exitCode, stdout } = await capture('doctor', '--python', '/nowhere/python', '--json');
    const report = JSON.parse(stdout) as Report;
    expect(exitCode).toBe(1);
    expect(report.ok).toBe(false);
    const python = report.checks.find(({ name }) => name === 'python');
    expect(python).toMatchObject({ status: 'missing', hint: expect.stringContaining('npx fpdt setup') as string });
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
