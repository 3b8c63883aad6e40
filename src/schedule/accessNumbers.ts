/** Numbers of the distinct accesses of a schedule, which has a million accesses that say the same few thousand things. */
import type { Access } from './op.js';

export class AccessNumbers {
  /** By number, which is the order of first use. */
  readonly distinct: Access[] = [];
  /** Passes and readers share the objects of equal accesses, mostly, so that to know the object is the fast way. */
  private readonly byObject = new Map<Access, number>();
  private readonly byContent = new Map<string, number>();

  numberOf(access: Access): number {
    return this.byObject.get(access) ?? this.meet(access);
  }

  private meet(access: Access): number {
    const { buffer, rows, param, index } = access;
    const content = `${buffer}/${rows.start}/${rows.end}/${param}/${index}`;
    const number = this.byContent.get(content) ?? this.distinct.push(access) - 1;
    this.byContent.set(content, number);
    this.byObject.set(access, number);
    return number;
  }
}
