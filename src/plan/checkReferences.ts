/** What the header of a plan names must be there: buffers of tables, streams of links, sections, arguments and masks of calls. */
import type { Call } from '../schedule/program.js';
import { turnName } from '../schedule/program.js';
import type { PlanHeader } from './header.js';
import { damaged } from './planErrors.js';

/** Throws an FpdtError `plan-damaged` for the first name or number that leads nowhere. */
export function checkReferences(header: PlanHeader): void {
  const { pools, links, streams, buffers, tables, programs } = header;
  const poolNames = new Set(pools.map(({ name }) => name));
  const strange = links.find(({ from, to, stream }) => !poolNames.has(from) || !poolNames.has(to) || !streams.includes(stream));
  if (strange !== undefined) throw damaged(`it links ${strange.from} to ${strange.to} on ${strange.stream}, one of which it does not have`);
  for (const [i, { id, name, pool, shape, strides }] of buffers.entries()) {
    if (id !== i) throw damaged(`buffer ${name} has id ${id} at position ${i}`);
    if (!poolNames.has(pool)) throw damaged(`buffer ${name} lies in pool ${pool}, which it does not have`);
    if (shape.length !== strides.length) throw damaged(`buffer ${name} has ${shape.length} dimensions but ${strides.length} strides`);
  }
  const table = tables.find(({ buffer }) => buffer >= buffers.length);
  if (table !== undefined) throw damaged(`table ${table.name} fills buffer ${table.buffer} of ${buffers.length}`);
  const turns = [...programs.train.turns, ...(programs.evaluate?.turns ?? [])];
  for (const turn of turns) for (const call of turn.calls) checkCall(call, turnName(turn), header);
}

function checkCall({ section: name, args, layer, waits }: Call, turn: string, { sections, streams, model }: PlanHeader): void {
  const section = sections.find((candidate) => candidate.name === name);
  if (section === undefined) throw damaged(`${turn} calls section ${name}, which it does not have`);
  if (args.length !== section.params.length)
    throw damaged(`${turn} calls ${name} with ${args.length} arguments, it has ${section.params.length} parameters`);
  if (layer !== undefined && layer >= model.numLayers) throw damaged(`${turn} calls ${name} for layer ${layer} of ${model.numLayers}`);
  if (waits.length !== streams.length || waits.some((mask) => mask >= 2 ** streams.length))
    throw damaged(`${turn} calls ${name} with entry masks of other than its ${streams.length} streams`);
}
