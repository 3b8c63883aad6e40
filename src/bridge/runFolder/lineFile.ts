/** A text file that grows by whole lines, whatever happens to the disk. */
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { FpdtError } from '../../spec/errors.js';

/** A link is not followed, and what is not there to be written at once is not waited for. */
const APPEND = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;

export class LineFile {
  readonly path: string;
  readonly #handle: number;
  /** Up to the end of its last whole line. */
  #length: number;
  /** Part of a line may come after that. */
  #isTorn: boolean;

  /**
   * Opens or makes the file; part of a line at its end is dropped. Throws FpdtError `output-not-a-file` for a device, FIFO, socket, link or
   * folder, and the system's error.
   */
  constructor(path: string) {
    this.path = path;
    this.#handle = openPlain(path);
    this.#length = wholeLength(this.#handle);
    this.#isTorn = true;
    this.#mend();
  }

  text(): string {
    return readFileSync(this.path, 'utf8');
  }

  /** All of the line or nothing of it is in the file afterwards. Throws the system's error, such as ENOSPC. */
  write(line: string): void {
    const bytes = Buffer.from(`${line}\n`, 'utf8');
    this.#mend();
    this.#isTorn = true;
    for (let done = 0; done < bytes.length; ) done += this.#writeFrom(bytes, done);
    this.#length += bytes.length;
    this.#isTorn = false;
  }

  close(): void {
    closeSync(this.#handle);
  }

  #writeFrom(bytes: Buffer, done: number): number {
    try {
      return writeSync(this.#handle, bytes, done);
    } catch (error) {
      this.#mend();
      throw error;
    }
  }

  #mend(): void {
    if (!this.#isTorn) return;
    ftruncateSync(this.#handle, this.#length);
    this.#isTorn = false;
  }
}

/** Bytes up to the end of the last line, from the back. */
function wholeLength(handle: number): number {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let end = fstatSync(handle).size; end > 0; ) {
    const start = Math.max(0, end - BLOCK_BYTES);
    const count = readSync(handle, block, 0, end - start, start);
    const newline = block.subarray(0, count).lastIndexOf(NEWLINE);
    if (newline >= 0) return start + newline + 1;
    end = start;
  }
  return 0;
}

const BLOCK_BYTES = 65_536;
const NEWLINE = 10;

function openPlain(path: string): number {
  let handle: number;
  try {
    handle = openSync(path, APPEND, 0o644);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // A link (ELOOP), a socket or an absent reader of a FIFO (ENXIO), a folder.
    if (code === 'ELOOP' || code === 'ENXIO' || code === 'EISDIR') throw notAFile(path, cause);
    throw cause;
  }
  if (fstatSync(handle).isFile()) return handle;
  closeSync(handle);
  throw notAFile(path);
}

function notAFile(path: string, cause?: unknown): FpdtError {
  return new FpdtError(`${path} is a link, a device or something else that is no plain file`, {
    code: 'output-not-a-file',
    hint: 'give a new folder for the run, or remove what is in the way',
    details: { path },
    cause,
  });
}
