/** Ctrl-C and SIGTERM: the first asks the run to stop all ranks, the second ends this process at once. */
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
