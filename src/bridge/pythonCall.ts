/**
 * One guarded call into Python through pythonia. Only JSON text crosses the bridge (a NaN or an object would crash or hang it),
 * the death of the interpreter or its idleness end the call, and the interpreter is always stopped. Never used while training.
 */

import type { ChildProcess } from 'node:child_process';
import { delimiter } from 'node:path';
import { FpdtError } from '../spec/errors.js';
import { watchIdle } from './idleWatch.js';
import { PYTHON_FOLDER } from './python.js';
import { guard, release } from './warden.js';

export interface PythonCall {
  readonly python: string;
  /** Absolute path of a file with a function `invoke(name, arguments_json) -> json`. */
  readonly file: string;
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** The call is ended when the interpreter has used no processor time for this long. */
  readonly idleSeconds: number;
  readonly hint: string;
}

interface Pythonia {
  readonly python: ((file: string) => Promise<{ invoke(name: string, json: string): Promise<string> }>) & {
    exit(): void;
    setFastMode(isFast: boolean): void;
  };
  readonly com: { proc: ChildProcess | null; start(): void };
}

type Answer =
  | { readonly ok: unknown }
  | { readonly error: { readonly kind: string; readonly message: string; readonly hint: string | null; readonly traceback: string } };

/** pythonia has one interpreter per process. */
let previous: Promise<unknown> = Promise.resolve();

/** The JSON value that the Python function returned. Throws `python-call-failed`. */
export function callPython(call: PythonCall): Promise<unknown> {
  const result = previous.then(() => callAlone(call));
  previous = result.catch(() => undefined);
  return result;
}

async function callAlone(call: PythonCall): Promise<unknown> {
  const { python, com } = await openBridge(call.python);
  const watch = watchCall(call, com.proc);
  const pid = com.proc?.pid;
  if (pid !== undefined) guard(pid);
  try {
    const module = await Promise.race([python(call.file), watch.ended]);
    python.setFastMode(true);
    const text = await Promise.race([module.invoke(call.name, JSON.stringify(call.arguments)), watch.ended]);
    return readAnswer(call, JSON.parse(text) as Answer);
  } finally {
    watch.stop();
    python.exit();
    if (pid !== undefined) release(pid);
  }
}

/** pythonia reads these variables when it starts the interpreter: at import, and at `start` after an earlier `exit`. */
async function openBridge(interpreter: string): Promise<Pythonia> {
  const { PYTHON_BIN, REQ_TIMEOUT, PYTHONPATH } = process.env;
  process.env.PYTHON_BIN = interpreter;
  process.env.REQ_TIMEOUT = '0';
  process.env.PYTHONPATH = [PYTHON_FOLDER, ...(PYTHONPATH ? [PYTHONPATH] : [])].join(delimiter);
  try {
    const { default: pythonia } = (await import('pythonia')) as unknown as { default: Pythonia };
    if (pythonia.com.proc === null) pythonia.com.start();
    return pythonia;
  } finally {
    restore('PYTHON_BIN', PYTHON_BIN);
    restore('REQ_TIMEOUT', REQ_TIMEOUT);
    restore('PYTHONPATH', PYTHONPATH);
  }
}

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}

/** `ended` rejects when the interpreter is gone or hangs. */
function watchCall(call: PythonCall, process: ChildProcess | null): { readonly ended: Promise<never>; readonly stop: () => void } {
  let stop: () => void = () => undefined;
  const ended = new Promise<never>((_, reject) => {
    const fail = (reason: string): void => reject(callError(call, reason));
    process?.on('error', (error) => fail(`cannot start or reach ${call.python}: ${error.message}`));
    process?.once('exit', (code, signal) => fail(`${call.python} ended (${signal ?? `code ${code}`}) during ${call.name}`));
    process?.once('disconnect', () => fail(`${call.python} closed the channel during ${call.name}`));
    if (process?.pid !== undefined) {
      stop = watchIdle(process.pid, call.idleSeconds, () => fail(`${call.name} has done nothing for ${call.idleSeconds} s`));
    }
  });
  // Ends of the interpreter after the answer are expected.
  ended.catch(() => undefined);
  return { ended, stop };
}

function readAnswer(call: PythonCall, answer: Answer): unknown {
  if ('ok' in answer) return answer.ok;
  const { kind, message, hint, traceback } = answer.error;
  throw callError(call, `${kind}: ${message}`, { traceback, isExplained: typeof hint === 'string' }, hint ?? call.hint);
}

function callError(call: PythonCall, message: string, facts: Readonly<Record<string, unknown>> = {}, hint = call.hint): FpdtError {
  return new FpdtError(`Python call ${call.name} failed: ${message}`, {
    code: 'python-call-failed',
    hint,
    details: { python: call.python, ...facts },
  });
}
