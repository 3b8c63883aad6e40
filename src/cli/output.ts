/** What commands print: results on stdout, remarks and errors on stderr; with --json one JSON value on stdout. */
import pc from 'picocolors';
import { FpdtError } from '../spec/errors.js';

export interface Output {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

export const CONSOLE: Output = {
  out: (text) => void process.stdout.write(`${text}\n`),
  err: (text) => void process.stderr.write(`${text}\n`),
};

export function printJson(output: Output, value: unknown): void {
  output.out(JSON.stringify(value, null, 2));
}

/** `error: message`, what a rank said about it, and the smallest change that works. */
export function printError(output: Output, error: unknown, asJson: boolean): void {
  if (asJson) printJson(output, { error: errorToJson(error) });
  output.err(`${pc.red('error:')} ${messageOf(error)}`);
  for (const text of background(error)) output.err(indent(text));
  if (error instanceof FpdtError && error.hint !== undefined) output.err(`${pc.cyan('hint:')} ${error.hint}`);
}

export function errorToJson(error: unknown): Readonly<Record<string, unknown>> {
  if (!(error instanceof FpdtError)) return { code: 'internal', message: messageOf(error) };
  const { code, message, hint, details } = error;
  return { code, message, ...(hint === undefined ? {} : { hint }), ...(details === undefined ? {} : { details }) };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A rank's traceback or last words, unless it says itself what to change; the stack of what is a bug here. */
function background(error: unknown): string[] {
  if (!(error instanceof FpdtError)) return error instanceof Error && error.stack !== undefined ? [error.stack] : [];
  const { traceback, stderrTail, isExplained } = (error.details ?? {}) as {
    traceback?: unknown;
    stderrTail?: unknown;
    isExplained?: unknown;
  };
  if (isExplained === true) return [];
  return [traceback, stderrTail].filter((text): text is string => typeof text === 'string' && text.trim() !== '').slice(0, 1);
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .slice(-40)
    .map((line) => `  ${line}`)
    .join('\n');
}
