/** The Python process that runs jobs one after another; see python/fpdt/testing/harness.py. */
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { PYTHON_FOLDER, resolvePython } from '../../src/bridge/python.js';

export interface JobResult {
  readonly losses?: readonly number[];
  readonly steps?: readonly StepResult[];
  /** Of a `worker` job with packed documents: where those of rank 0 begin, by micro-step of the first step. */
  readonly documents?: readonly (readonly number[])[];
  /** Of all steps, by op kind: pairs of a query and a key that attention of rank 0 was asked for. */
  readonly pairs?: Readonly<Record<string, number>>;
  /** Worst relative difference of a `compare` job; null when it is not a number. */
  readonly error?: number | null;
  /** The tensor it was found in. */
  readonly where?: string;
  /** Why the job failed. */
  readonly failed?: string;
  readonly traceback?: string;
}

/** The fields of a step's result that checks here look at. */
export interface StepResult {
  readonly loss: number | null;
  readonly seconds: number;
  readonly idle_seconds: number;
  readonly by_kind: Readonly<Record<string, { readonly count: number; readonly seconds: number }>>;
  /** By pool. */
  readonly pool_bytes: Readonly<Record<string, number>>;
  readonly memory_measured: boolean;
  /** By stream. */
  readonly copied_bytes: Readonly<Record<string, number>>;
}

/** What a job may have beside its kind is in the Python file; keys it does not know are refused there. */
export type Job = {
  readonly kind: 'worker' | 'reference' | 'compare';
  /** A job may take any time; it fails when none of its processes has used a processor for so long. */
  readonly idleSeconds?: number;
} & Readonly<Record<string, unknown>>;

function startHarness(python: string) {
  const env = { PYTHONPATH: PYTHON_FOLDER, OMP_NUM_THREADS: '1', DS_ACCELERATOR: 'cpu' };
  return execa(python, ['-m', 'fpdt.testing.harness'], { env, stdin: 'pipe', stderr: 'pipe', buffer: false, reject: false });
}

export class Harness {
  private readonly child: ReturnType<typeof startHarness>;
  private readonly lines: AsyncIterator<string>;
  private numJobs = 0;
  private errors = '';

  constructor(python: string) {
    this.child = startHarness(python);
    this.child.stderr.on('data', (text: Buffer) => {
      this.errors = (this.errors + text.toString()).slice(-4000);
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  static start(): Harness {
    return new Harness(resolvePython());
  }

  /** Runs one job. Throws when the harness itself is gone; a failed job is a result. */
  async run(job: Job): Promise<JobResult> {
    const id = this.numJobs++;
    this.child.stdin.write(`${JSON.stringify({ id, ...job })}\n`);
    const { value, done } = await this.lines.next();
    if (done === true) throw new Error(`the harness stopped:\n${this.errors}`);
    return JSON.parse(value) as JobResult;
  }

  /** Runs one job and throws when it fails. */
  async mustRun(job: Job): Promise<JobResult> {
    const result = await this.run(job);
    if (result.failed !== undefined) throw new Error(`${job.kind} failed: ${result.failed}\n${result.traceback ?? ''}`);
    return result;
  }

  async stop(): Promise<void> {
    this.child.stdin.end();
    await this.child;
  }
}
