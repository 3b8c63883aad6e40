/** Plain text tables: the first column is text, aligned left, the others are aligned right. */

export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => all.reduce((most, row) => Math.max(most, (row[column] ?? '').length), 0));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

/** measured / planned, or a dash where one of them is missing. */
export function formatRatio(measured: number, planned: number): string {
  return planned > 0 && measured > 0 ? `${(measured / planned).toFixed(2)}x` : '-';
}
