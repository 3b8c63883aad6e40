/** Ctrl-C and SIGTERM: the first asks the run to stop all ranks, the second ends this process at once. */
import { FpdtError } from '../spec/errors.js';
import { INTERRUPTED } from './exitCodes.js';
import type { Output } from './output.js';

/** Runs `work` with a signal that the first interrupt aborts. Returns 0, or 130 when it was interrupted. */
export async function withInterrupt(output: Output, work: (signal: AbortSignal) => Promise<void>): Promise<number> {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    output.err('stopping the ranks; once more ends at once');
    controller.abort('interrupted');
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    await work(controller.signal);
    return 0;
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    output.err('interrupted: all ranks have stopped');
    return INTERRUPTED;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/**
 * Runs `work` with a signal that the first interrupt aborts so that it can save what it has; the second ends this process, and the ranks with
 * it, at once. Returns what `work` returns, or 130 when it was interrupted before there was anything to save.
 */
export async function withStop(output: Output, work: (stopSignal: AbortSignal) => Promise<number>): Promise<number> {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    output.err(`${name}: a checkpoint after this step, then the run ends; once more ends it at once`);
    controller.abort(name);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (!(error instanceof FpdtError && error.code === 'run-aborted')) throw error;
    output.err('interrupted before there was anything to save: all ranks have stopped');
    return INTERRUPTED;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}
