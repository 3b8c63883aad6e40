/** Numbers of the distinct accesses of a schedule, which has a million accesses that say the same few thousand things. */
import type { Access } from './op.js';

export class AccessNumbers {
  /** By number, which is the order of first use. */
  readonly distinct: Access[] = [];
  /** Passes and readers share the objects of equal accesses, mostly, so that to know the object is the fast way. */
  private readonly byObject = new Map<Access, number>();
  /** By hash of the content. */
  private readonly byContent = new Map<number, number[]>();

  numberOf(access: Access): number {
    return this.byObject.get(access) ?? this.meet(access);
  }

  private meet(access: Access): number {
    const hash = hashOf(access);
    const alike = this.byContent.get(hash) ?? [];
    if (alike.length === 0) this.byContent.set(hash, alike);
    let number = alike.find((one) => isEqual(this.distinct[one] as Access, access));
    if (number === undefined) {
      number = this.distinct.push(access) - 1;
      alike.push(number);
    }
    this.byObject.set(access, number);
    return number;
  }
}

/** Of 32 bits, in the manner of FNV-1a; rows beyond 2^32 fold. */
function hashOf({ buffer, rows, param, index }: Access): number {
  let hash = 0x811c9dc5;
  hash = Math.imul(hash ^ buffer, 0x01000193);
  hash = Math.imul(hash ^ rows.start, 0x01000193);
  hash = Math.imul(hash ^ rows.end, 0x01000193);
  hash = Math.imul(hash ^ param, 0x01000193);
  return Math.imul(hash ^ index, 0x01000193);
}

function isEqual(one: Access, other: Access): boolean {
  return (
    one.buffer === other.buffer &&
    one.rows.start === other.rows.start &&
    one.rows.end === other.rows.end &&
    one.param === other.param &&
    one.index === other.index
  );
}
