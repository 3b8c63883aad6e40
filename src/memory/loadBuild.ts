/**
 * What is held while a model is built unit by unit (python/fpdt/models/build.py): the weights before, in the run's dtype and sharded
 * under ZeRO-3, and one unit, made in fp32 in host memory, then cast and moved weight by weight, the smallest first. Weights that
 * are read from a folder need less: they are read, and cast, one by one.
 */
import { numWeightElements } from '../catalog/parameters.js';
import type { ParameterView } from '../spec/types.js';
import { type Held, kept, type LoadTerms, passing } from './loadTerms.js';
import { secondPartitionBytes, shardOf } from './stateTerms.js';
import { bufferItem, goesToDisk } from './weightsDisk.js';

type Unit = readonly ParameterView[];

/** The moments of building that may be the peak of start-up. */
export function buildingMoments(terms: LoadTerms): readonly (readonly Held[])[] {
  const { embed, layers, head } = terms.parameters;
  const moments: (readonly Held[])[] = [];
  let before = 0;
  const build = (unit: Unit, mayBePeak = true): void => {
    if (mayBePeak) moments.push(...unitMoments(unit, before, terms));
    const stays = unit.filter((view) => !goesToDisk(view, terms));
    before += terms.zero.stage === 3 ? shardOf(stays, terms.numRanks) : numWeightElements(unit);
  };
  for (const unit of modulesOf(embed)) build(unit);
  // Each layer of a class finds more there than the one before it, so the last is the one that may be the peak.
  for (const [layer, kind] of terms.classOf.entries()) build(layers[kind]?.weights ?? [], terms.classOf.lastIndexOf(kind) === layer);
  for (const unit of modulesOf(head)) build(unit);
  return moments;
}

/** Beside the decoder layers, a unit is a module with weights of its own. */
function modulesOf(views: Unit): readonly Unit[] {
  const byModule = new Map<string, ParameterView[]>();
  for (const view of views) {
    const module = view.name.slice(0, Math.max(0, view.name.lastIndexOf('.')));
    byModule.set(module, [...(byModule.get(module) ?? []), view]);
  }
  return [...byModule.values()];
}

function unitMoments(unit: Unit, before: number, terms: LoadTerms): readonly (readonly Held[])[] {
  const { w, numRanks, zero } = terms;
  // Each weight's share is a pinned block by itself, of up to twice its size.
  const pinned = zero.offloadWeights === 'pinned' && terms.device === 'cuda' ? 2 : 1;
  const name = zero.stage === 3 ? 'weight shard so far' : 'weights so far';
  const place = zero.offloadWeights === undefined ? 'device' : 'pinned';
  const there = kept(name, pinned * w * before, `${w} B * weights of the units before`, place);
  const buffers = { ...bufferItem(terms), place, passing: false } as const;
  const second = kept('second partition so far', zero.stage === 3 ? secondPartitionBytes(before, terms) : 0, 'of the units before', place);
  const moments = castMoments(unit, terms).map((moment) => [there, buffers, second, ...moment]);
  if (zero.stage < 3) return moments;
  const largest = Math.max(...unit.map(({ numel }) => Math.ceil(numel / numRanks)));
  const sharding = [
    there,
    buffers,
    second,
    passing('unit being sharded', w * numWeightElements(unit), `${w} B * parameters of the unit: each is whole until it is sharded`),
    passing('shard being made', w * largest, `${w} B * largest parameter of the unit / ranks`),
    passing('its second partition', secondPartitionBytes(largest, terms), 'of the largest parameter of the unit', place),
  ];
  return [...moments, sharding];
}

/** In fp32 on a CPU nothing is cast or moved. Elsewhere the host also has the cast weight that is on its way to a GPU. */
function castMoments(unit: Unit, { w, device }: LoadTerms): readonly (readonly Held[])[] {
  const whole = numWeightElements(unit);
  if (w === 4 && device === 'cpu') return [[passing('unit being made', 4 * whole, '4 B * parameters of the unit')]];
  const sizes = unit.map(({ numel }) => numel).sort((a, b) => a - b);
  let cast = 0;
  return sizes.map((numel) => {
    const left = whole - cast;
    cast += numel;
    const onItsWay = w < 4 && device === 'cuda' ? w * numel : 0;
    return [
      passing('unit being made in fp32', 4 * left, '4 B * parameters of the unit that are still to be cast', 'pinned'),
      passing('weight on its way', onItsWay, `${w} B * the parameter being cast and moved`, 'pinned'),
      passing('unit being cast', w * cast, `${w} B * parameters of the unit that are cast`),
    ];
  });
}
