/**
 * JSON text to values, as strict as the format is. JSON.parse takes the last of two equal keys in silence, makes Infinity of 1e999,
 * nests as deep as the text goes, and where it fails it knows neither the key nor, in every Node, the line. A reviver cannot mend that:
 * it sees the values that are left, and Node 20 gives it no source. Hence a reader of our own, held against JSON.parse by a test.
 */
import { FpdtError } from './errors.js';

/** No file that is read here nests a tenth as deep. */
export const MAX_DEPTH = 100;

/** `what` names the input in errors, which say the line, the column and the key that is being read. */
export function parseJsonText(text: string, what: string): unknown {
  return new Reader(text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text, what).whole();
}

/** Windows editors begin a file with it. */
const BYTE_ORDER_MARK = '\uFEFF';
const BLANK = /[ \t\r\n]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const TEXT = /"(?:[^"\\]+|\\.)*"/y;
const WORD = /[-+\w.]+/y;
const WORDS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);
/** What Python's json writes for a float that is no number. */
const NOT_FINITE = ['NaN', 'Infinity', '-Infinity'];

class Reader {
  private at = 0;
  /** Keys from the root to what is being read. */
  private readonly path: string[] = [];

  private readonly text: string;
  private readonly what: string;

  constructor(text: string, what: string) {
    this.text = text;
    this.what = what;
  }

  whole(): unknown {
    this.blank();
    if (this.at === this.text.length) throw this.wrong('the file is empty', 'expected a JSON object');
    const value = this.value();
    this.blank();
    if (this.at < this.text.length) throw this.wrong(`found ${this.next()} after the end of the JSON value`, 'delete what follows it');
    return value;
  }

  private value(): unknown {
    if (this.path.length > MAX_DEPTH) throw this.wrong(`lists and objects are nested more than ${MAX_DEPTH} deep`);
    const first = this.text[this.at];
    if (first === '{') return this.object();
    if (first === '[') return this.list();
    if (first === '"') return this.string();
    const word = this.take(WORD) ?? '';
    if (WORDS.has(word)) return WORDS.get(word);
    this.at -= word.length;
    if (NOT_FINITE.includes(word)) throw this.wrong(`${word} is no JSON, though Python writes it`, 'give a finite number, or null');
    const number = this.take(NUMBER);
    if (number === undefined || number.length < word.length) {
      this.at -= number?.length ?? 0;
      throw this.wrong(`expected a value, found ${this.next()}`);
    }
    if (!Number.isFinite(Number(number)))
      throw this.wrong(`${shortened(number)} is past the largest number`, 'give a finite number, or null');
    return Number(number);
  }

  private object(): unknown {
    const entries = new Map<string, unknown>();
    const lines = new Map<string, number>();
    this.items('}', () => {
      if (this.text[this.at] !== '"') throw this.wrong(`expected a key in double quotes, found ${this.next()}`);
      const start = this.at;
      const key = this.string();
      this.path.push(key);
      const before = lines.get(key);
      if (before !== undefined) {
        this.at = start;
        throw this.wrong('the key is given twice', `it stands on line ${before} too: keep one of them`, 'duplicate-key');
      }
      lines.set(key, this.line(start));
      this.blank();
      if (!this.skip(':')) throw this.wrong(`expected ':' after the key, found ${this.next()}`);
      this.blank();
      entries.set(key, this.value());
      this.path.pop();
    });
    // Own properties all, `__proto__` among them.
    return Object.fromEntries(entries);
  }

  private list(): unknown[] {
    const values: unknown[] = [];
    this.items(']', () => {
      this.path.push(String(values.length));
      values.push(this.value());
      this.path.pop();
    });
    return values;
  }

  /** What stands between brackets, commas in between. */
  private items(end: string, readOne: () => void): void {
    this.at += 1;
    this.blank();
    if (this.skip(end)) return;
    for (;;) {
      readOne();
      this.blank();
      if (this.skip(end)) return;
      if (!this.skip(',')) throw this.wrong(`expected ',' or '${end}', found ${this.next()}`);
      this.blank();
      if (this.text[this.at] === end) throw this.wrong(`found a comma before '${end}'`, 'delete the comma');
    }
  }

  private string(): string {
    const start = this.at;
    const quoted = this.take(TEXT);
    try {
      if (quoted !== undefined) return JSON.parse(quoted) as string;
    } catch {
      // What stands between the quotes is no text of JSON's: said below, as for one without an end.
    }
    this.at = start;
    throw this.wrong('a text is not closed, or holds a line break or a backslash that JSON does not know');
  }

  private blank(): void {
    this.take(BLANK);
  }

  private take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    this.at += found?.length ?? 0;
    return found;
  }

  private skip(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private next(): string {
    return this.at >= this.text.length ? 'the end: the file is cut short' : JSON.stringify(this.text.slice(this.at, this.at + 12));
  }

  private line(at: number): number {
    return this.text.slice(0, at).split('\n').length;
  }

  private wrong(problem: string, hint?: string, code = 'not-json'): FpdtError {
    const [line, column] = [this.line(this.at), this.at - this.text.lastIndexOf('\n', this.at - 1)];
    const key = this.path.length === 0 ? '' : `, key '${shortened(this.path.slice(0, 8).join('.'))}'`;
    return new FpdtError(`${this.what}, line ${line}, column ${column}${key}: ${problem}`, {
      code,
      hint: hint ?? 'mend the file there, or write it again',
      details: { line, column, key: this.path.join('.') },
    });
  }
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
