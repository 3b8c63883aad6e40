/** Runs a command line in this process and keeps what it prints. */
import { runCli } from '../../src/cli/program.js';

export interface Captured {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export async function capture(...args: readonly string[]): Promise<Captured> {
  const out: string[] = [];
  const err: string[] = [];
  const exitCode = await runCli(args, { out: (text) => void out.push(text), err: (text) => void err.push(text) });
  return { exitCode, stdout: out.join('\n'), stderr: err.join('\n') };
}

export const DEMO = [
  ...['--model', 'examples/demo/model/config.json', '--deepspeed', 'examples/demo/ds_config.json'],
  ...['--gpus', '2', '--gpu', 'cpu', '--seq-len', '512', '--chunks', '4'],
] as const;
