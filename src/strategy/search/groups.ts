/** Groups of a rank's heads that come one after the other. */
import { headGroupCounts } from '../../spec/parallelLayout.js';
import type { Setting } from '../setting.js';

/** Of two groups and more, that the solver may choose among. */
export function groupCounts({ run, layout }: Setting): readonly number[] {
  return run.headGroups === undefined ? headGroupCounts(layout).slice(1) : [];
}

export function inGroups(setting: Setting, headGroups: number): Setting {
  return { ...setting, run: { ...setting.run, headGroups } };
}
