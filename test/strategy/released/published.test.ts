import { describe, expect, it } from 'vitest';
import { comparePublished, JUDGED_TOKENS, MOST_ERROR, MOST_MEAN_ERROR } from '../../../bench/publishedRows.js';

describe('published rows', () => {
  const published = comparePublished();

  it('have step times within the targets', () => {
    expect(published.numJudged).toBeGreaterThanOrEqual(9);
    expect(published.meanError).toBeLessThanOrEqual(MOST_MEAN_ERROR);
    expect(published.worstError).toBeLessThanOrEqual(MOST_ERROR);
  });

  it('fit at their maximum and not at twice it', () => {
    expect(published.rows.filter(({ fitsRight }) => fitsRight === false).map(({ row }) => row.source)).toEqual([]);
    expect(published.numMaxima).toBeGreaterThanOrEqual(34);
  });

  it('have memory within three tenths of what is printed, from 128K tokens on', () => {
    const long = published.rows.filter(({ row }) => row.memoryGiB !== undefined && row.seqLen >= JUDGED_TOKENS);
    expect(long.length).toBeGreaterThanOrEqual(12);
    for (const { row, memoryGiB } of long) expect(Math.abs(memoryGiB / (row.memoryGiB ?? 0) - 1), row.source).toBeLessThan(0.3);
  });
});
