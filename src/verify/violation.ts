/** What the verifier finds, and how much of it is kept. */

/** The call at which a violation was found: its turn, and its number among the turn's calls. */
export interface CallName {
  /** As turnName gives it, e.g. `layer 3 backward`. */
  readonly turn: string;
  readonly number: number;
}

export interface Violation {
  /** Name of a section; `plan` for buffers, pools and tables, `program` for the order of turns. */
  readonly section: string;
  /** Id of the op in its section. */
  readonly op?: number;
  readonly call?: CallName;
  /** The op, buffer or turn as text. */
  readonly text: string;
  readonly problem: string;
}

export function callText({ turn, number }: CallName): string {
  return `call ${number} of ${turn}`;
}

/** Violations in the order found, at most `limit`: one mistake may break a hundred thousand ops. */
export class Violations {
  readonly found: Violation[] = [];
  private readonly limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  get isFull(): boolean {
    return this.found.length >= this.limit;
  }

  add(violation: Violation): void {
    if (!this.isFull) this.found.push(violation);
  }
}
