/**
 * `npm run bench:published -- [--json]`: step time, memory and whether it fits of released programs, predicted by their plan-only models
 * against what was published. Step times count from 128K tokens on; what a shorter row's time is made of is printed. An MFU whose
 * convention is not known is printed beside the predicted one in four, and is no part of the errors. Fails when a target is missed.
 */
import { parseOptions, runScript } from '../scripts/options.js';
import { type ComparedRow, comparePublished, JUDGED_TOKENS, MOST_ERROR, MOST_MEAN_ERROR, type Published } from './publishedRows.js';

const NUM_TERMS = 8;

function lineOf({ row, stepSeconds, error, judged, fits, fitsTwice, fitsRight, memoryGiB, mfu, terms }: ComparedRow): string {
  const time =
    row.stepSeconds === undefined
      ? `${stepSeconds.toPrecision(4)} s`
      : `${stepSeconds.toPrecision(4)} of ${row.stepSeconds} s, ${signed(error)}`;
  const memory = row.memoryGiB === undefined ? `${memoryGiB.toFixed(1)} GiB` : `${memoryGiB.toFixed(1)} of ${row.memoryGiB} GiB`;
  const fit =
    fitsRight === null ? '' : fitsRight ? '; fits, and not twice as long' : `; WRONG: fits ${String(fits)}, twice ${String(fitsTwice)}`;
  const printed =
    row.mfuPercent === undefined
      ? []
      : [
          `MFU printed ${row.mfuPercent}%; predicted ${percent(mfu.causalModel)} causal, ${percent(mfu.causalHardware)} with recompute, ${percent(mfu.fullModel)} full, ${percent(mfu.fullHardware)} with recompute`,
        ];
  const short = row.stepSeconds !== undefined && !judged;
  const made = terms.slice(0, NUM_TERMS).map(({ name, seconds }) => `${name} ${seconds.toPrecision(3)} s`);
  return [
    `${row.source}\n    ${row.model}, ${row.gpus} x ${row.gpu}, ${row.seqLen} tokens: ${time}; ${memory}${fit}`,
    ...printed,
    ...(short ? [`below ${JUDGED_TOKENS} tokens, not judged: ${made.join(', ')}`] : []),
    ...(row.note === undefined ? [] : [row.note]),
  ].join('\n    ');
}

function summary({ numJudged, meanError, worstError, numMaxima, numWrongFits, mfuErrors }: Published): readonly string[] {
  const errors = Object.entries(mfuErrors).map(([name, error]) => `${name} ${percent(error)}`);
  return [
    `${mark(meanError <= MOST_MEAN_ERROR)} step time, mean error of ${numJudged} rows from ${JUDGED_TOKENS} tokens on: ${percent(meanError)}, at most ${percent(MOST_MEAN_ERROR)}`,
    `${mark(worstError <= MOST_ERROR)} step time, worst error: ${percent(worstError)}, at most ${percent(MOST_ERROR)}`,
    `${mark(numWrongFits === 0)} fits at the maximum and not at twice it: ${numMaxima - numWrongFits} of ${numMaxima} rows`,
    `       MFU of unknown convention, mean difference: ${errors.join(', ')}`,
  ];
}

function mark(ok: boolean): string {
  return ok ? 'ok    ' : 'MISSED';
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

function signed(error: number | null): string {
  return error === null ? '' : `${error < 0 ? '' : '+'}${percent(error)}`;
}

function main(): void {
  const { values } = parseOptions({ options: { json: { type: 'boolean', default: false } } });
  const published = comparePublished();
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'publishedBenchmark', ...published }, null, 1)}\n`);
  else process.stdout.write(`${[...published.rows.map(lineOf), '', ...summary(published)].join('\n')}\n`);
  const { meanError, worstError, numWrongFits } = published;
  process.exitCode = meanError <= MOST_MEAN_ERROR && worstError <= MOST_ERROR && numWrongFits === 0 ? 0 : 1;
}

await runScript(() => Promise.resolve(main()));
