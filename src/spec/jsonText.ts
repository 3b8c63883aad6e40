/**
 * JSON text to values, as strict as the format is. JSON.parse takes the last of two equal keys in silence, makes Infinity of 1e999,
 * nests as deep as the text goes, and where it fails it knows neither the key nor, in every Node, the line. A reviver cannot mend that:
 * it sees the values that are left, and Node 20 gives it no source. Hence a reader of our own, held against JSON.parse by a test.
 */
import { shortened, TextReader, WORDS } from './textReader.js';

/** `what` names the input in errors, which say the line, the column and the key that is being read. */
export function parseJsonText(text: string, what: string): unknown {
  return new JsonReader(text, what).whole();
}

const BLANK = /[ \t\r\n]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const TEXT = /"(?:[^"\\]+|\\.)*"/y;
const WORD = /[-+\w.]+/y;
/** What Python's json writes for a float that is no number. */
const NOT_FINITE = ['NaN', 'Infinity', '-Infinity'];

class JsonReader extends TextReader {
  whole(): unknown {
    this.blank();
    if (this.isAtEnd()) throw this.wrong('the file is empty', 'expected a JSON object');
    const value = this.value();
    this.blank();
    if (!this.isAtEnd()) throw this.wrong(`found ${this.shown()} after the end of the JSON value`, 'delete what follows it');
    return value;
  }

  protected value(): unknown {
    this.refuseDepth();
    const first = this.next();
    if (first === '{') return this.objectOf((readOne) => this.items('}', readOne));
    if (first === '[') return this.listOf((readOne) => this.items(']', readOne));
    if (first === '"') return this.string();
    const word = this.take(WORD);
    if (WORDS.has(word)) return WORDS.get(word);
    this.at -= word.length;
    if (NOT_FINITE.includes(word)) throw this.wrong(`${word} is no JSON, though Python writes it`, 'give a finite number, or null');
    const number = this.take(NUMBER);
    if (number === '' || number.length < word.length) {
      this.at -= number.length;
      throw this.wrong(`expected a value, found ${this.shown()}`);
    }
    if (!Number.isFinite(Number(number)))
      throw this.wrong(`${shortened(number)} is past the largest number`, 'give a finite number, or null');
    return Number(number);
  }

  protected key(): string {
    if (this.next() !== '"') throw this.wrong(`expected a key in double quotes, found ${this.shown()}`);
    return this.string();
  }

  protected blank(): void {
    this.take(BLANK);
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
      if (!this.skip(',')) throw this.wrong(`expected ',' or '${end}', found ${this.shown()}`);
      this.blank();
      if (this.next() === end) throw this.wrong(`found a comma before '${end}'`, 'delete the comma');
    }
  }

  private string(): string {
    const start = this.at;
    const quoted = this.take(TEXT);
    try {
      if (quoted !== '') return JSON.parse(quoted) as string;
    } catch {
      // What stands between the quotes is no text of JSON's: said below, as for one without an end.
    }
    this.at = start;
    throw this.wrong('a text is not closed, or holds a line break or a backslash that JSON does not know');
  }
}
