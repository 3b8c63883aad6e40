/** Ranges of layers that cover a model once, and the segments that each is cut into. */
import { FpdtError } from './errors.js';
import { segmentLengths } from './strategy.js';

type LayerRange = readonly [start: number, end: number];

/** Throws `bad-layers`, with the smallest change, unless the ranges cover layers 0 to numLayers in order, each layer once. */
export function checkRanges(ranges: readonly LayerRange[], numLayers: number): void {
  let covered = 0;
  for (const [i, [start, end]] of ranges.entries()) {
    const problem = rangeProblem([start, end], covered, numLayers);
    if (problem !== undefined) throw badLayers(`strategy.layers.${i}.layers`, [start, end], problem, sortedHint(ranges, numLayers));
    covered = end;
  }
  if (covered === numLayers) return;
  const last = ranges.at(-1) ?? [0, 0];
  const problem = {
    text: `no range holds ${layersText(covered, numLayers)}`,
    hint: `end it at ${numLayers}: ${rangeText([last[0], numLayers])}`,
  };
  throw badLayers(`strategy.layers.${ranges.length - 1}.layers`, last, problem, undefined);
}

interface Problem {
  readonly text: string;
  readonly hint: string;
}

/** What is wrong with a range when those before it end at `covered`. */
function rangeProblem([start, end]: LayerRange, covered: number, numLayers: number): Problem | undefined {
  if (end <= start) return { text: 'holds no layer', hint: 'write [start, end): the first layer and the one after the last' };
  if (end > numLayers) {
    const hint = covered < numLayers ? `end it at ${numLayers}: ${rangeText([covered, numLayers])}` : 'remove it';
    return { text: `the model has ${numLayers} layers`, hint };
  }
  const restart = end > covered ? `start it at ${covered}: ${rangeText([covered, end])}` : 'remove it';
  if (start < covered) return { text: `another range holds ${layersText(start, Math.min(end, covered))} already`, hint: restart };
  if (start > covered) return { text: `no range holds ${layersText(covered, start)}`, hint: restart };
  return undefined;
}

/** Ranges that only stand in another order are to be put in theirs. */
function sortedHint(ranges: readonly LayerRange[], numLayers: number): string | undefined {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const covers = sorted.every(([start, end], i) => end > start && start === (sorted[i - 1]?.[1] ?? 0)) && sorted.at(-1)?.[1] === numLayers;
  return covers ? `put them in the order of their layers: ${sorted.map(rangeText).join(', ')}` : undefined;
}

function badLayers(at: string, range: LayerRange, { text, hint }: Problem, sorted: string | undefined): FpdtError {
  return new FpdtError(`${at} ${rangeText(range)}: ${text}`, { code: 'bad-layers', hint: sorted ?? hint, details: { path: at } });
}

function rangeText([start, end]: LayerRange): string {
  return `[${start}, ${end}]`;
}

function layersText(start: number, end: number): string {
  return end - start === 1 ? `layer ${start}` : `layers ${start} to ${end - 1}`;
}

interface SegmentedRange {
  readonly layers: LayerRange;
  readonly segments?: number | readonly number[] | undefined;
}

/** Lengths of a range's segments; undefined where nobody fixed them. The run's segmentLayers holds for every range. */
export function resolveSegments(
  { layers: [start, end], segments }: SegmentedRange,
  at: string,
  segmentLayers?: number,
): readonly number[] | undefined {
  const numLayers = end - start;
  const ofRun = segmentLayers === undefined ? undefined : segmentLengths(numLayers, segmentLayers);
  const lengths = typeof segments === 'number' ? segmentLengths(numLayers, segments) : segments;
  if (lengths === undefined) return ofRun;
  checkSum(lengths, numLayers, at);
  if (ofRun === undefined || ofRun.join() === lengths.join()) return lengths;
  throw new FpdtError(`run.segmentLayers ${segmentLayers} makes segments of ${ofRun.join(', ')} but ${at} are ${lengths.join(', ')}`, {
    code: 'conflict',
    hint: 'give one of them',
  });
}

function checkSum(lengths: readonly number[], numLayers: number, at: string): void {
  const sum = lengths.reduce((total, length) => total + length, 0);
  if (sum === numLayers) return;
  const last = (lengths.at(-1) ?? 0) + numLayers - sum;
  throw new FpdtError(`${at}: segments of ${lengths.join(', ')} layers are ${sum} in all, the range has ${numLayers}`, {
    code: 'bad-segment',
    hint: last > 0 ? `a last segment of ${last} works` : `segments of ${segmentLengths(numLayers, lengths[0] ?? 1).join(', ')} work`,
    details: { path: at },
  });
}
