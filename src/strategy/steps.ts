/** Work that may be ended between its steps. */
export type Steps<T> = Generator<undefined, T, undefined>;

/** All of them at once. */
export function finish<T>(steps: Steps<T>): T {
  let step = steps.next();
  while (step.done !== true) step = steps.next();
  return step.value;
}

/** One a turn of the event loop, so that others may abort. Rejects with the signal's reason once it is; without a signal, all at once. */
export async function finishUnlessAborted<T>(steps: Steps<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return finish(steps);
  let step = steps.next();
  while (step.done !== true) {
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
    signal.throwIfAborted();
    step = steps.next();
  }
  return step.value;
}
