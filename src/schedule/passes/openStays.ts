/** Which stays of a tile the ops that follow may go on with. */
import type { TensorRef } from '../logical.js';
import type { How, Residency } from './residency.js';
import type { Tile } from './tile.js';

/**
 * Stays of one tile that the ops of their turns may still go on with. Turns overlap (pre runs a chunk ahead), so two stays may hold the
 * tile at once; where one needs a chunk that the other changed, the other ends there, and its turn begins another if it comes back.
 * So stays that use a chunk, one of them changing it, use it in the order of their first ops.
 */
export class OpenStays {
  readonly tile: Tile;
  private readonly byTurn = new Map<number, Residency>();
  /** Those that changed a chunk. */
  private changed: readonly Residency[] = [];
  /** By chunk the first op of the latest stay that used it, and of the latest that changed it. */
  private readonly lastUse = new Map<number, number>();
  private readonly lastChange = new Map<number, number>();

  constructor(tile: Tile) {
    this.tile = tile;
  }

  stayOf(turn: number): Residency | undefined {
    return this.byTurn.get(turn);
  }

  /** Before an op uses chunks: ends the stays that may not go on, its turn's own among them. */
  close(ref: TensorRef, how: How, turn: number): void {
    for (const other of this.changed) if (other.turn !== turn && other.changed(ref)) this.end(other);
    const own = this.byTurn.get(turn);
    const later = how === 'reads' ? this.lastChange : this.lastUse;
    for (let { start: chunk } = ref.chunks; chunk < ref.chunks.end; chunk++) {
      if (own !== undefined && (later.get(chunk) ?? -1) > own.first) this.end(own);
    }
  }

  /** After an op used chunks. */
  note({ chunks }: TensorRef, how: How, stay: Residency): void {
    this.byTurn.set(stay.turn, stay);
    if (how !== 'reads' && !this.changed.includes(stay)) this.changed = [...this.changed, stay];
    for (let chunk = chunks.start; chunk < chunks.end; chunk++) {
      if (stay.first > (this.lastUse.get(chunk) ?? -1)) this.lastUse.set(chunk, stay.first);
      if (how !== 'reads' && stay.first > (this.lastChange.get(chunk) ?? -1)) this.lastChange.set(chunk, stay.first);
    }
  }

  private end(stay: Residency): void {
    this.byTurn.delete(stay.turn);
    this.changed = this.changed.filter((other) => other !== stay);
  }
}
