/** An error a user can act on: what was expected, what was found, and the smallest change that works. */
export interface FpdtErrorOptions {
  /** Stable, kebab-case name of the kind of error, e.g. `unknown-key`, `does-not-fit`. */
  readonly code: string;
  /** The smallest change that makes it work. */
  readonly hint?: string | undefined;
  /** Facts for programs; JSON-safe. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
}

export class FpdtError extends Error {
  readonly code: string;
  readonly hint?: string;
  readonly details?: Readonly<Record<string, unknown>>;

  constructor(message: string, { code, hint, details, cause }: FpdtErrorOptions) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'FpdtError';
    this.code = code;
    if (hint !== undefined) this.hint = hint;
    if (details !== undefined) this.details = details;
  }
}
