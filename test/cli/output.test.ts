import { expect, test } from 'vitest';
import { printError } from '../../src/cli/output.js';
import { FpdtError } from '../../src/spec/errors.js';

function printed(details: Readonly<Record<string, unknown>>): string {
  const lines: string[] = [];
  const output = { out: () => undefined, err: (text: string) => void lines.push(text) };
  printError(output, new FpdtError('rank 0: no', { code: 'rank-failed', hint: 'change it', details }), false);
  return lines.join('\n');
}

test('a traceback is printed where nobody said what to change', () => {
  expect(printed({ traceback: 'Traceback of it', isExplained: false })).toContain('Traceback of it');
  const explained = printed({ traceback: 'Traceback of it', stderrTail: 'Traceback of it', isExplained: true });
  expect(explained).not.toContain('Traceback');
  expect(explained).toContain('change it');
});
