/** One thing that is looked at: what was found, and whether a run can do with it. */
export interface Check {
  readonly name: string;
  /** `warning`: fpdt works with it, worse or less than it could. */
  readonly status: 'ok' | 'warning' | 'missing';
  readonly found: string;
  readonly hint?: string;
}

/** `found` as it should be. */
export function fine(name: string, found: string): Check {
  return { name, status: 'ok', found };
}

export function warning(name: string, found: string, hint: string): Check {
  return { name, status: 'warning', found, hint };
}
