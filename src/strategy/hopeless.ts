/** What needs no schedule to be seen: that model states, or the layer inputs of any strategy, have no room. */
import { buildLedger, roomBytes, scheduleUse } from '../memory/ledger.js';
import type { Setting } from './setting.js';

/** Whether no strategy fits. False says nothing. */
export function isHopeless(setting: Setting): boolean {
  const { fits, pools } = buildLedger({ ...setting, arenaBytes: {}, use: NO_USE });
  const freeBytes = pools.reduce((sum, pool) => sum + roomBytes(pool) - pool.persistent.reduce((all, { bytes }) => all + bytes, 0), 0);
  return !fits || fewestStates(setting.model.numLayers) * stateBytes(setting) > freeBytes;
}

const NO_USE = scheduleUse({ sections: [], programs: { train: { turns: [] } } });

/** A checkpoint for each segment of as many layers as there are segments, and the states inside one: see `hiddenSlots`. */
function fewestStates(numLayers: number): number {
  const lengths = Array.from({ length: numLayers }, (_, i) => i + 1);
  return Math.min(...lengths.map((length) => Math.ceil(numLayers / length) + length - 1));
}

/** A rank's tokens of the hidden states. */
function stateBytes({ run, sizes }: Setting): number {
  return (run.seqLen * sizes.h * sizes.w) / sizes.ranks;
}
