/**
 * The slow reference of the simulator: objects, the whole program at once, nothing remembered. Every op of every call is a task that
 * knows the tasks it comes after.
 */
import { STREAMS, type TimedOp, type TimedProgram } from './samples.js';

interface Task {
  readonly stream: number;
  readonly seconds: number;
  readonly issuedAt: number;
  /** Tasks that must have ended: the one before it on its stream, its waits, and what its stream waits for at the call's entry. */
  readonly after: readonly Task[];
  /** End of the last work of ZeRO that stood alone. */
  readonly notBefore: number;
  start: number;
  end: number;
}

export interface ReferenceRun {
  readonly seconds: number;
  readonly advance: ReadonlyMap<string, number>;
  readonly busy: ReadonlyMap<string, readonly number[]>;
}

export function referenceRun(program: TimedProgram, free: { copies?: boolean; host?: boolean } = {}): ReferenceRun {
  const { sections, turns, device, beside = false } = program;
  const queued: Task[][] = STREAMS.map(() => []);
  /** By stream: what its next op has to wait for, from entry masks. */
  const pending: Task[][] = STREAMS.map(() => []);
  const advance = new Map<string, number>();
  const busy = new Map<string, number[]>();
  let [host, now, joinedAt] = [0, 0, 0];

  const alone = (section: string, seconds: number): void => {
    if (seconds > 0) joinedAt = now;
    delay(section, seconds);
  };
  const delay = (section: string, seconds: number): void => {
    now += seconds;
    joinedAt += seconds;
    for (const task of queued.flat()) task.end += seconds;
    advance.set(section, (advance.get(section) ?? 0) + seconds);
  };

  for (const { calls, gatherSeconds: gather, reduceSeconds: reduce } of turns) {
    const before = now;
    if (gather !== undefined && !beside) alone('gather', gather);
    for (const { section: name, waits = [] } of calls) {
      const ops = sections.find((section) => section.name === name)?.ops ?? [];
      STREAMS.forEach((_, stream) => {
        STREAMS.forEach((_other, other) => {
          if ((((waits[stream] ?? 0) >> other) & 1) === 1) pending[stream]?.push(...(queued[other] ?? []).slice(-1));
        });
      });
      const tasks: Task[] = [];
      for (const op of ops) {
        host += op.host ?? 0;
        const task: Task = {
          stream: op.stream,
          seconds: free.copies === true && op.stream >= 2 ? 0 : op.seconds,
          issuedAt: free.host === true ? 0 : host,
          after: afterOf(op, tasks),
          notBefore: joinedAt,
          start: Number.NaN,
          end: Number.NaN,
        };
        tasks.push(task);
        queued[op.stream]?.push(task);
      }
      const tails = STREAMS.map((_, stream) => lastEnd((queued[stream] ?? []).filter((task) => !tasks.includes(task))));
      if (device.serial) runOneByOne(tasks, now);
      else runBySmallSteps(tasks, tails, device.duplex);
      const last = tasks.reduce((end, task) => Math.max(end, task.end), now);
      advance.set(name, (advance.get(name) ?? 0) + last - now);
      now = last;
      const sums = busy.get(name) ?? STREAMS.map(() => 0);
      for (const task of tasks) sums[task.stream] = (sums[task.stream] ?? 0) + task.end - task.start;
      busy.set(name, sums);
    }
    if (beside) {
      const own = now - before;
      if (gather !== undefined) delay('gather', Math.max(0, gather - own));
      if (reduce !== undefined) delay('reduce', Math.max(0, reduce - Math.max(0, own - (gather ?? 0))));
    } else if (reduce !== undefined) alone('reduce', reduce);
  }
  return { seconds: now, advance, busy };

  function afterOf(op: TimedOp, tasks: readonly Task[]): readonly Task[] {
    const stream = queued[op.stream] ?? [];
    const entry = pending[op.stream]?.splice(0) ?? [];
    return [...stream.slice(-1), ...entry, ...(op.waits ?? []).flatMap((wait) => tasks[wait] ?? [])];
  }
}

function lastEnd(tasks: readonly Task[]): number {
  return tasks.reduce((end, task) => Math.max(end, task.end), 0);
}

function runOneByOne(tasks: readonly Task[], from: number): void {
  let now = from;
  for (const task of tasks) {
    task.start = now;
    now += task.seconds;
    task.end = now;
  }
}

/** From event to event, every task looked at every time. `tails`: until when earlier calls use each stream. */
function runBySmallSteps(tasks: readonly Task[], tails: readonly number[], duplex: TimedProgram['device']['duplex']): void {
  const left = new Map(tasks.map((task) => [task, task.seconds]));
  const isRunning = (task: Task): boolean => !Number.isNaN(task.start) && Number.isNaN(task.end);
  const readyAt = ({ after, issuedAt, notBefore }: Task): number => Math.max(issuedAt, notBefore, ...after.map(({ end }) => end));
  let now = 0;

  const slowdown = ({ stream }: Task): number => {
    if (duplex === undefined || !duplex.streams.includes(stream)) return 1;
    const opposite = duplex.streams[0] === stream ? duplex.streams[1] : duplex.streams[0];
    const isBusy = (tails[opposite] ?? 0) > now || tasks.some((task) => task.stream === opposite && isRunning(task));
    return isBusy ? duplex.slowdown : 1;
  };

  while (tasks.some(({ end }) => Number.isNaN(end))) {
    for (const task of tasks) if (Number.isNaN(task.start) && readyAt(task) <= now) task.start = now;
    const events: { step: number; time: number }[] = [];
    for (const task of tasks) {
      if (isRunning(task)) {
        const step = (left.get(task) ?? 0) * slowdown(task);
        events.push({ step, time: now + step });
      } else if (Number.isNaN(task.start) && !Number.isNaN(readyAt(task))) events.push({ step: readyAt(task) - now, time: readyAt(task) });
    }
    for (const time of tails) if (time > now) events.push({ step: time - now, time });
    const next = events.reduce((first, event) => (event.step < first.step ? event : first));
    const ended = tasks.filter((task) => isRunning(task) && (left.get(task) ?? 0) * slowdown(task) <= next.step);
    const slowdowns = new Map(tasks.filter(isRunning).map((task) => [task, slowdown(task)]));
    for (const [task, factor] of slowdowns) left.set(task, (left.get(task) ?? 0) - next.step / factor);
    now = next.time;
    for (const task of ended) task.end = now;
  }
}
