/** The whole schedule of a strategy, and what it needs. */
import { layoutSchedule } from '../address/layout.js';
import { type MemoryLedger, buildLedger, scheduleUse } from '../memory/ledger.js';
import { buildSchedule } from '../schedule/build.js';
import type { Schedule } from '../schedule/schedule.js';
import type { Strategy } from '../spec/strategy.js';
import { addEvaluation } from './evaluation.js';
import { type Setting, policyContext, scratchFormula } from './setting.js';

export interface Built {
  readonly schedule: Schedule;
  readonly memory: MemoryLedger;
}

/** The schedule of a strategy, its addresses and entry masks, and its memory; with a program that evaluates where the run asks for one. */
export function buildStrategy(setting: Setting, strategy: Strategy): Built {
  const training = layoutSchedule(buildSchedule(policyContext(setting, strategy), setting.machine, scratchFormula(setting)));
  const schedule = setting.run.evaluate === true ? addEvaluation(setting, strategy, training) : training;
  return { schedule, memory: ledgerOf(setting, schedule) };
}

function ledgerOf(setting: Setting, schedule: Schedule): MemoryLedger {
  const arenaBytes = Object.fromEntries(schedule.pools.map(({ name, bytes }) => [name, bytes]));
  return buildLedger({ ...setting, arenaBytes, use: scheduleUse(schedule) });
}
