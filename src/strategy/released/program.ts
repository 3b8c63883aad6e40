/** What the model of a released program is made of; one file each, and a line in programs.ts. */
import type { MemoryLedger } from '../../memory/ledger.js';
import type { MicroStep, TimeTerm } from './costs.js';
import type { ProgramFacts, ReleasedSetting } from './setting.js';

export interface ReleasedProgram {
  readonly facts: ProgramFacts;
  readonly memory: (setting: ReleasedSetting) => MemoryLedger;
  readonly micro: (setting: ReleasedSetting) => MicroStep;
  /** Of an optimizer step. */
  readonly step: (setting: ReleasedSetting) => readonly TimeTerm[];
  /** What the model leaves out, or the program does not have. */
  readonly remarks: (setting: ReleasedSetting) => readonly string[];
}
