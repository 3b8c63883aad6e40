/** What the readers of JSON and of Hjson share: a place in a text, the keys that lead to it, and errors that name both. */
import { FpdtError } from './errors.js';

/** No file that is read here nests a tenth as deep. */
export const MAX_DEPTH = 100;
/** Windows editors begin a file with it. */
const BYTE_ORDER_MARK = '\uFEFF';
const MOST_SHOWN_KEYS = 8;

/** Words that are values, in both. */
export const WORDS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);

export abstract class TextReader {
  protected at = 0;
  protected readonly text: string;
  /** By the path of a key (`zero_optimization.stage`), where it stands. */
  protected readonly starts = new Map<string, number>();
  /** Keys from the root to what is being read. */
  readonly #path: string[] = [];
  readonly #what: string;

  /** `what` names the input in errors. */
  constructor(text: string, what: string) {
    this.text = text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
    this.#what = what;
  }

  protected abstract value(): unknown;
  protected abstract key(): string;
  /** Blanks, and comments where there are any. */
  protected abstract blank(): void;

  protected refuseDepth(): void {
    if (this.#path.length > MAX_DEPTH) throw this.wrong(`lists and objects are nested more than ${MAX_DEPTH} deep`);
  }

  /** `eachItem` calls what it is given at the beginning of every member. */
  protected objectOf(eachItem: (readOne: () => void) => void): unknown {
    const entries = new Map<string, unknown>();
    eachItem(() => {
      const start = this.at;
      const key = this.key();
      this.#path.push(key);
      const place = this.#path.join('.');
      if (entries.has(key)) {
        const before = this.line(this.starts.get(place) ?? 0);
        this.at = start;
        throw this.wrong('the key is given twice', `it stands on line ${before} too: keep one of them`, 'duplicate-key');
      }
      this.starts.set(place, start);
      this.blank();
      if (!this.skip(':')) throw this.wrong(`expected ':' after the key, found ${this.shown()}`);
      this.blank();
      entries.set(key, this.value());
      this.#path.pop();
    });
    // Own properties all, `__proto__` among them.
    return Object.fromEntries(entries);
  }

  protected listOf(eachItem: (readOne: () => void) => void): unknown[] {
    const values: unknown[] = [];
    eachItem(() => {
      this.#path.push(String(values.length));
      values.push(this.value());
      this.#path.pop();
    });
    return values;
  }

  /** What a sticky pattern finds here, which may be nothing. */
  protected take(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.at += found.length;
    return found;
  }

  protected skip(character: string): boolean {
    if (this.next() !== character) return false;
    this.at += 1;
    return true;
  }

  protected next(): string {
    return this.text[this.at] ?? '';
  }

  protected isAtEnd(): boolean {
    return this.at >= this.text.length;
  }

  protected shown(): string {
    return this.isAtEnd() ? 'the end: the file is cut short' : JSON.stringify(this.text.slice(this.at, this.at + 12));
  }

  protected line(at: number): number {
    return this.text.slice(0, at).split('\n').length;
  }

  protected wrong(problem: string, hint = 'mend the file there, or write it again', code = 'not-json'): FpdtError {
    const [line, column] = [this.line(this.at), this.at - this.text.lastIndexOf('\n', this.at - 1)];
    const key = this.#path.length === 0 ? '' : `, key '${shortened(this.#path.slice(0, MOST_SHOWN_KEYS).join('.'))}'`;
    return new FpdtError(`${this.#what}, line ${line}, column ${column}${key}: ${problem}`, {
      code,
      hint,
      details: { line, column, key: this.#path.join('.') },
    });
  }
}

export function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
