/** A file of lines that goes on where it can be written again, and says once when it cannot and once when it can. */
import type { LineFile } from './lineFile.js';

export interface Written {
  readonly remarks: readonly string[];
  /** Why the line is not in the file. */
  readonly failure?: unknown;
}

export class OpenLines {
  readonly #file: LineFile;
  readonly #name: string;
  #numMissing = 0;

  constructor(file: LineFile, name: string) {
    this.#file = file;
    this.#name = name;
  }

  text(): string {
    return this.#file.text();
  }

  write(line: string): Written {
    try {
      this.#file.write(line);
    } catch (failure) {
      this.#numMissing += 1;
      const remarks = this.#numMissing > 1 ? [] : [`${this.#name} is not written: ${reasonOf(failure)}`];
      return { remarks, failure };
    }
    const remarks = this.#numMissing === 0 ? [] : [`${this.#name} is written again; ${this.#missing()}`];
    this.#numMissing = 0;
    return { remarks };
  }

  close(): readonly string[] {
    const missing = this.#numMissing === 0 ? [] : [`${this.#name}: ${this.#missing()}`];
    try {
      this.#file.close();
      return missing;
    } catch (failure) {
      return [...missing, `${this.#name} may lack its last lines: ${reasonOf(failure)}`];
    }
  }

  #missing(): string {
    return this.#numMissing === 1 ? 'a line is missing' : `${this.#numMissing} lines are missing`;
  }
}

function reasonOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}
