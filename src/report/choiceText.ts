/** Why a plan has its strategy, as text. */
import { poolLabel } from '../catalog/pools.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ChoiceExplanation, KnobEffect } from '../strategy/explain/choice.js';
import { formatTable } from './table.js';

/** Seconds closer than this are told as the same: estimates are no closer. */
const SAME = 0.001;
const MOST_ROWS = 24;

export function choiceToText(choice: ChoiceExplanation): string {
  const { stepSeconds, computeSeconds, pools, nextBest, knobs } = choice;
  const names = pools.map(({ pool }) => pool);
  return [
    `Why         ${formatSeconds(stepSeconds)} a step estimated, ${formatSeconds(computeSeconds)} of it computing`,
    ...pools.map((one) => `  ${boundText(poolLabel(one.pool), one.stepSeconds, stepSeconds)}`),
    `Next best   ${nextBest === null ? 'none of what is one choice away fits' : nextText(nextBest, stepSeconds)}`,
    '',
    formatTable(
      ['one choice changed', 'to', 'step', 'fits', ...names.map(poolLabel)],
      knobs.slice(0, MOST_ROWS).map((knob) => cells(knob, stepSeconds, names)),
    ),
    ...(knobs.length > MOST_ROWS ? [`and ${knobs.length - MOST_ROWS} more, with --json`] : []),
  ].join('\n');
}

function boundText(label: string, endless: number, stepSeconds: number): string {
  if (endless > stepSeconds * (1 - SAME)) return `${label} does not bound it`;
  return `${label} bounds it: with any amount a step would take ${formatSeconds(endless)}`;
}

function nextText({ knob, value, stepSeconds }: KnobEffect, chosen: number): string {
  return `${knob} ${value}: ${changeText(stepSeconds, chosen)}`;
}

function cells({ knob, value, fits, stepSeconds, pools }: KnobEffect, chosen: number, names: readonly string[]): readonly string[] {
  const more = (name: string): string => bytesText(pools.find(({ pool }) => pool === name)?.moreBytes ?? 0);
  return [knob, value, changeText(stepSeconds, chosen), fits ? 'yes' : 'no', ...names.map(more)];
}

function changeText(seconds: number, chosen: number): string {
  const share = seconds / chosen - 1;
  return Math.abs(share) < SAME ? 'the same' : `${share > 0 ? '+' : ''}${(100 * share).toFixed(1)}%`;
}

function bytesText(bytes: number): string {
  return bytes === 0 ? '0' : `${bytes > 0 ? '+' : '-'}${formatBytes(Math.abs(bytes))}`;
}
