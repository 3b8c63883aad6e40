/** Which bytes of its pool's arena an access names, once its call says which instances the parameters are. */
import { rowBytes } from '../catalog/ops/index.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Access } from '../schedule/op.js';

/** Half-open, from the start of an arena. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** The instance that an access names in a call with these arguments. */
export function instanceOf({ param, index }: Pick<Access, 'param' | 'index'>, args: readonly number[]): number {
  return param < 0 ? index : index + (args[param] ?? 0);
}

/** Byte range of an access in the arena of its buffer. */
export function byteRange(access: Access, buffer: Buffer, args: readonly number[]): ByteRange {
  const first = buffer.offset + instanceOf(access, args) * buffer.instanceBytes;
  const bytes = rowBytes(buffer);
  return { start: first + access.rows.start * bytes, end: first + access.rows.end * bytes };
}

/** Bytes of all instances, the gaps between them included. */
export function bufferBytes({ instances, instanceBytes }: Pick<Buffer, 'instances' | 'instanceBytes'>): number {
  return instances * instanceBytes;
}

/** The bytes of all its instances in the arena of its pool. */
export function bufferRange(buffer: Buffer): ByteRange {
  return { start: buffer.offset, end: buffer.offset + bufferBytes(buffer) };
}
