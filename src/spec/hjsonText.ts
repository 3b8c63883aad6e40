/**
 * Hjson as DeepSpeed's reader has it (hjson-py 3.1.0, decoder.py), which takes JSON too: comments, keys and texts without quotes, commas
 * that are missing before a line break or stand before a bracket, a root without braces. Keys given twice are refused, as DeepSpeed
 * refuses them. Held against hjson-py by a test.
 */
import { FpdtError } from './errors.js';
import { MAX_DEPTH } from './jsonText.js';
import { hjsonString } from './hjsonString.js';

export interface HjsonText {
  readonly value: unknown;
  /** By the path of a key (`zero_optimization.stage`) the line on which it stands. */
  readonly lines: ReadonlyMap<string, number>;
}

/** `what` names the input in errors, which say the line, the column and the key that is being read. */
export function parseHjson(text: string, what: string): HjsonText {
  return new Reader(text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text, what).whole();
}

const BYTE_ORDER_MARK = '\uFEFF';
/** Blanks and comments. One that is not closed is an error of the text. */
const BLANK = /(?:[ \t\r\n]|#[^\r\n]*|\/\/[^\r\n]*|\/\*[\s\S]*?\*\/)*/y;
/** A word or number ends where a comma, a bracket, a comment or the line does; what is neither runs on to the end of the line. */
const WORD = /[^\r\n,}\]#/]*(?:\/(?![/*])[^\r\n,}\]#/]*)*/y;
const REST_OF_LINE = /[^\r\n]*/y;
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/;
const KEY = /[^:{}[\],\s]+/y;
const WORDS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);

class Reader {
  private at = 0;
  /** Keys from the root to what is being read. */
  private readonly path: string[] = [];
  private readonly lines = new Map<string, number>();
  private readonly text: string;
  private readonly what: string;

  constructor(text: string, what: string) {
    this.text = text;
    this.what = what;
  }

  whole(): HjsonText {
    this.blank();
    if (this.isAtEnd()) throw this.wrong('the file is empty', 'expected a JSON object');
    const isBare = !'{['.includes(this.next());
    const value = isBare ? this.object('') : this.value();
    this.blank();
    if (!this.isAtEnd()) throw this.wrong(`found ${this.shown()} after the end of the value`, 'delete what follows it');
    return { value, lines: this.lines };
  }

  private value(): unknown {
    if (this.path.length > MAX_DEPTH) throw this.wrong(`lists and objects are nested more than ${MAX_DEPTH} deep`);
    const first = this.next();
    if (first === '{') return this.object('}');
    if (first === '[') return this.list();
    if (first === '"' || first === "'") return this.string();
    if (first === '' || '}],:'.includes(first)) throw this.wrong(`expected a value, found ${this.shown()}`);
    return this.bare();
  }

  /** A word or a number; or else the rest of the line, which is a text. */
  private bare(): unknown {
    const start = this.at;
    const word = this.take(WORD).trim();
    if (WORDS.has(word)) return WORDS.get(word);
    if (NUMBER.test(word)) {
      // Python's -0 is 0.
      if (Number.isFinite(Number(word))) return Number(word) + 0;
      this.at = start;
      throw this.wrong('the number is past the largest', 'give a finite number');
    }
    this.at = start;
    return this.take(REST_OF_LINE).trim();
  }

  /** `end` is empty for a root without braces. */
  private object(end: '}' | ''): unknown {
    if (end !== '') this.at += 1;
    const entries = new Map<string, unknown>();
    this.items(end, () => {
      const start = this.at;
      const key = this.key();
      this.path.push(key);
      const place = this.path.join('.');
      if (entries.has(key)) {
        this.at = start;
        throw this.wrong('the key is given twice', `it stands on line ${this.lines.get(place)} too: keep one of them`, 'duplicate-key');
      }
      this.lines.set(place, this.line(start));
      this.blank();
      if (!this.skip(':')) throw this.wrong(`expected ':' after the key, found ${this.shown()}`);
      this.blank();
      entries.set(key, this.value());
      this.path.pop();
    });
    // Own properties all, `__proto__` among them.
    return Object.fromEntries(entries);
  }

  private list(): unknown[] {
    this.at += 1;
    const values: unknown[] = [];
    this.items(']', () => {
      this.path.push(String(values.length));
      values.push(this.value());
      this.path.pop();
    });
    return values;
  }

  /** What stands between brackets. A comma may follow each, the last too. */
  private items(end: '}' | ']' | '', readOne: () => void): void {
    for (this.blank(); !this.isEnd(end); this.blank()) {
      readOne();
      this.blank();
      this.skip(',');
    }
    if (end !== '') this.at += 1;
  }

  private isEnd(end: '}' | ']' | ''): boolean {
    if (end !== '' && this.isAtEnd()) throw this.wrong(`expected '${end}', found ${this.shown()}`);
    return this.next() === end;
  }

  private key(): string {
    if (this.next() === '"' || this.next() === "'") return this.string();
    const key = this.take(KEY);
    if (key !== '') return key;
    throw this.wrong(`expected a key, found ${this.shown()}`);
  }

  private string(): string {
    const found = hjsonString(this.text, this.at);
    if (found === undefined) throw this.wrong('a text is not closed, or holds a line break or a backslash that JSON does not know');
    this.at = found.end;
    return found.value;
  }

  private blank(): void {
    this.take(BLANK);
    if (this.text.startsWith('/*', this.at)) throw this.wrong('a comment is not closed', "write '*/' at its end");
  }

  private take(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.at += found.length;
    return found;
  }

  private skip(character: string): boolean {
    if (this.next() !== character) return false;
    this.at += 1;
    return true;
  }

  private next(): string {
    return this.text[this.at] ?? '';
  }

  private isAtEnd(): boolean {
    return this.at >= this.text.length;
  }

  private shown(): string {
    return this.isAtEnd() ? 'the end: the file is cut short' : JSON.stringify(this.text.slice(this.at, this.at + 12));
  }

  private line(at: number): number {
    return this.text.slice(0, at).split('\n').length;
  }

  private wrong(problem: string, hint = 'mend the file there, or write it again', code = 'not-json'): FpdtError {
    const [line, column] = [this.line(this.at), this.at - this.text.lastIndexOf('\n', this.at - 1)];
    const path = this.path.join('.');
    const key = path === '' ? '' : `, key '${path.slice(0, 60)}'`;
    return new FpdtError(`${this.what}, line ${line}, column ${column}${key}: ${problem}`, {
      code,
      hint,
      details: { line, column, key: path },
    });
  }
}
