import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

function run(path: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', path, ...args], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout;
}

describe('examples', () => {
  it('are all run here', () => {
    expect(readdirSync('examples').filter((name) => name.endsWith('.ts'))).toEqual(['plan.ts', 'run.ts']);
  });

  it('plan.ts plans with each policy', () => {
    const lines = run('examples/plan.ts').trim().split('\n');
    expect(lines.map((line) => line.split(':')[0])).toEqual(['ulysses', 'ulysses-offload', 'alst', 'fpdt', 'auto']);
    expect(lines[3]).toMatch(/fpdt: \d+ chunks, k and v in host; .* GiB of hbm at \w+, .* GiB of host at \w+; .* s a step, MFU \d/);
  });

  it('run.ts trains, and copies as many bytes as planned', () => {
    const output = run('examples/run.ts');
    expect(output.match(/^step \d: loss \d/gm)).toHaveLength(3);
    const fetched = [...output.matchAll(/(\d+) bytes fetched a step/g)].map(([, bytes]) => Number(bytes));
    expect(fetched).toHaveLength(2);
    expect(fetched[0]).toBeGreaterThan(0);
    expect(fetched[1]).toBe(fetched[0]);
  });
});
