/**
 * Hjson as DeepSpeed's reader has it (hjson-py 3.1.0, decoder.py), which takes JSON too: comments, keys and texts without quotes, commas
 * that are missing before a line break or stand before a bracket, a root without braces. Keys given twice are refused, as DeepSpeed
 * refuses them. Held against hjson-py by a test.
 */
import { hjsonString } from './hjsonString.js';
import { TextReader, WORDS } from './textReader.js';

export interface HjsonText {
  readonly value: unknown;
  /** By the path of a key (`zero_optimization.stage`) the line on which it stands. */
  readonly lines: ReadonlyMap<string, number>;
}

/** `what` names the input in errors, which say the line, the column and the key that is being read. */
export function parseHjson(text: string, what: string): HjsonText {
  return new HjsonReader(text, what).whole();
}

/** Blanks and comments. One that is not closed is an error of the text. */
const BLANK = /(?:[ \t\r\n]|#[^\r\n]*|\/\/[^\r\n]*|\/\*[\s\S]*?\*\/)*/y;
/** A word or number ends where a comma, a bracket, a comment or the line does; what is neither runs on to the end of the line. */
const WORD = /[^\r\n,}\]#/]*(?:\/(?![/*])[^\r\n,}\]#/]*)*/y;
const REST_OF_LINE = /[^\r\n]*/y;
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/;
const KEY = /[^:{}[\],\s]+/y;

class HjsonReader extends TextReader {
  whole(): HjsonText {
    this.blank();
    if (this.isAtEnd()) throw this.wrong('the file is empty', 'expected a JSON object');
    const isBare = !'{['.includes(this.next());
    const value = isBare ? this.members('') : this.value();
    this.blank();
    if (!this.isAtEnd()) throw this.wrong(`found ${this.shown()} after the end of the value`, 'delete what follows it');
    return { value, lines: new Map([...this.starts].map(([path, at]) => [path, this.line(at)])) };
  }

  protected value(): unknown {
    this.refuseDepth();
    const first = this.next();
    if (first === '{') return this.members('}');
    if (first === '[') return this.listOf((readOne) => this.items(']', readOne));
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

  protected key(): string {
    if (this.next() === '"' || this.next() === "'") return this.string();
    const key = this.take(KEY);
    if (key !== '') return key;
    throw this.wrong(`expected a key, found ${this.shown()}`);
  }

  protected blank(): void {
    this.take(BLANK);
    if (this.text.startsWith('/*', this.at)) throw this.wrong('a comment is not closed', "write '*/' at its end");
  }

  /** `end` is empty for a root without braces. */
  private members(end: '}' | ''): unknown {
    return this.objectOf((readOne) => this.items(end, readOne));
  }

  /** What stands between brackets. A comma may follow each, the last too. */
  private items(end: '}' | ']' | '', readOne: () => void): void {
    if (end !== '') this.at += 1;
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

  private string(): string {
    const found = hjsonString(this.text, this.at);
    if (found === undefined) throw this.wrong('a text is not closed, or holds a line break or a backslash that JSON does not know');
    this.at = found.end;
    return found.value;
  }
}
