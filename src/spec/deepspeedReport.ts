/** What is found in a ds_config: problems, of which all are told at once, and remarks. */
import { FpdtError } from './errors.js';

export interface Problem {
  /** `zero_optimization.stage`; empty for the config as a whole. */
  readonly path: string;
  /** What follows `deepspeed.PATH`, e.g. `: expected a number, found true`. */
  readonly text: string;
  readonly code: string;
  readonly hint: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export class DeepSpeedReport {
  readonly problems: Problem[] = [];
  readonly remarks: string[] = [];
  readonly #lines: ReadonlyMap<string, number>;

  /** `lines` are those of the keys of a file. */
  constructor(lines: ReadonlyMap<string, number>) {
    this.#lines = lines;
  }

  add(...problems: readonly Problem[]): void {
    this.problems.push(...problems);
  }

  throwIfAny(): void {
    const found = [...this.problems].sort((a, b) => (this.#line(a.path) ?? 0) - (this.#line(b.path) ?? 0));
    const [first, ...rest] = found;
    if (first === undefined) return;
    const { code, hint, details } = first;
    if (rest.length === 0) {
      const line = this.#line(first.path);
      throw new FpdtError(this.#text(first), {
        code,
        hint,
        details: { path: first.path, ...(line === undefined ? {} : { line }), ...details },
      });
    }
    const lines = found.map((problem) => `  ${this.#text(problem)}; ${problem.hint}`);
    throw new FpdtError(`deepspeed: ${found.length} problems\n${lines.join('\n')}`, {
      code: rest.every((problem) => problem.code === code) ? code : 'invalid-ds-config',
      hint: 'each line ends with what to write',
      details: { problems: found.map((problem) => ({ ...problem, line: this.#line(problem.path) ?? null })) },
    });
  }

  #text({ path, text }: Problem): string {
    const line = this.#line(path);
    return `deepspeed${path === '' ? '' : `.${path}`}${line === undefined ? '' : ` (line ${line})`}${text}`;
  }

  /** Of a key, or of the section it is missing in. */
  #line(path: string): number | undefined {
    const parts = path.split('.');
    for (let end = parts.length; end > 0; end--) {
      const line = this.#lines.get(parts.slice(0, end).join('.'));
      if (line !== undefined) return line;
    }
    return undefined;
  }
}
