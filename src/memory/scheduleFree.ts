/** What of a ledger does not depend on the schedule: found once for the specs of a request, of which a search asks hundreds of times. */
import { loadItems, type LoadItems } from './load.js';
import { type ModelStates, modelStates, type ModelStatesInput } from './modelStates.js';

export interface ScheduleFree {
  readonly states: ModelStates;
  readonly load: Readonly<Record<'device' | 'pinned', LoadItems>>;
}

interface Known {
  readonly input: ModelStatesInput;
  readonly deviceBytes: number;
  readonly byExtraLayers: Map<number, ScheduleFree>;
}

/** The last request of every parameter table. */
const KNOWN = new WeakMap<ModelStatesInput['parameters'], Known>();

export function scheduleFree(input: ModelStatesInput, deviceBytes: number): ScheduleFree {
  const known = knownOf(input, deviceBytes);
  const found = known.byExtraLayers.get(input.extraLayers) ?? {
    states: modelStates(input),
    load: loadItems({ ...input, deviceBytes }),
  };
  known.byExtraLayers.set(input.extraLayers, found);
  return found;
}

function knownOf(input: ModelStatesInput, deviceBytes: number): Known {
  const known = KNOWN.get(input.parameters);
  if (known !== undefined && known.deviceBytes === deviceBytes && isSame(known.input, input)) return known;
  const fresh = { input, deviceBytes, byExtraLayers: new Map<number, ScheduleFree>() };
  KNOWN.set(input.parameters, fresh);
  return fresh;
}

/** The same objects, apart from what is asked for by its number. */
function isSame(known: ModelStatesInput, input: ModelStatesInput): boolean {
  const keys = Object.keys({ ...known, ...input }) as (keyof ModelStatesInput)[];
  return keys.every((key) => key === 'extraLayers' || known[key] === input[key]);
}
