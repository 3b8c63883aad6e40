/** Files that a command writes: whole or not at all, and never in the place of what is no plain file. */
import { lstatSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { FpdtError } from '../spec/errors.js';

const HINT = 'choose another place with --output';
const WHY_NOT: Readonly<Record<string, string>> = { ENOENT: 'its folder is not there', EISDIR: 'it is a folder' };

/**
 * Writes beside the target, syncs and renames: a reader sees the old file or the new one, never a part. `what` is what it holds, for
 * errors: `file-not-plain` where the target is a link, a device, a FIFO or a socket, `file-disk-full`, `file-unwritable`.
 */
export async function writeWholeFile(path: string, text: string, what: string): Promise<void> {
  checkPlainFile(path, what);
  const temporary = `${path}.${process.pid}.partial`;
  try {
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') throw diskFull(path, text, what, cause);
    throw unwritable(path, what, WHY_NOT[code ?? ''] ?? message, code, cause);
  }
}

/** For commands whose result takes long. What is not there can be written, as far as anybody knows. */
export function checkPlainFile(path: string, what: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.isFile()) return;
  if (found.isDirectory()) throw unwritable(path, what, 'it is a folder', 'EISDIR');
  throw new FpdtError(`cannot write ${what} ${path}: it is ${found.isSymbolicLink() ? 'a link' : 'a device, FIFO or socket'}`, {
    code: 'file-not-plain',
    hint: found.isSymbolicLink()
      ? 'give the path that it leads to'
      : 'give the path of a plain file; with --json results go to standard output',
    details: { path },
  });
}

function diskFull(path: string, text: string, what: string, cause: unknown): FpdtError {
  return new FpdtError(`no space left to write ${what} ${path} (${text.length} bytes)`, {
    code: 'file-disk-full',
    hint: 'free some space, or choose another place with --output',
    details: { path },
    cause,
  });
}

function unwritable(path: string, what: string, why: string, code: string | undefined, cause?: unknown): FpdtError {
  return new FpdtError(`cannot write ${what} ${path}: ${why}`, {
    code: 'file-unwritable',
    hint: HINT,
    details: { path, cause: code ?? 'unknown' },
    cause,
  });
}
