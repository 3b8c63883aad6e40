import { expect, test } from 'vitest';
import type { OpKind } from '../../src/catalog/ops/index.js';
import { instantOf, type TurnShape } from '../../src/memory/items.js';
import { scheduleUse, type ScheduleShape } from '../../src/memory/scheduleUse.js';

const section = (name: string, ...ops: readonly [OpKind, string, number][]) => ({
  name,
  ops: ops.map(([kind, stream, scratchBytes]) => ({ kind, stream, scratchBytes })),
});

const SECTIONS = [
  section('layerForward', ['pre', 'compute', 5], ['post', 'compute', 7], ['toHeads', 'comm', 3]),
  section('layerForward.2', ['pre', 'compute', 9]),
  section('layerRebuild', ['post', 'compute', 6]),
  section('lossForward', ['loss', 'compute', 20]),
  section('gather', ['gather', 'comm', 0]),
  section('release', ['release', 'comm', 0]),
];

const plan = (name: string, layer?: number) => ({ section: name, owner: 'plan' as const, ...(layer === undefined ? {} : { layer }) });

function useOf(...turns: readonly ScheduleShape['programs']['train']['turns'][number][]) {
  return scheduleUse({ sections: SECTIONS, programs: { train: { turns } } });
}

test('the largest op of each stream among all sections that the turns of an instant call', () => {
  const { temporaries } = useOf(
    { module: 'layer', direction: 'forward', calls: [plan('layerForward', 0)] },
    { module: 'layer', direction: 'forward', calls: [plan('layerForward.2', 1)] },
    { module: 'head', direction: 'forward', calls: [plan('lossForward')] },
  );
  expect(temporaries.layerForward).toEqual([
    { stream: 'compute', section: 'layerForward.2', bytes: 9 },
    { stream: 'comm', section: 'layerForward', bytes: 3 },
  ]);
  expect(temporaries.loss).toEqual([{ stream: 'compute', section: 'lossForward', bytes: 20 }]);
  expect(temporaries.layerBackward).toEqual([]);
});

test('a section counts where it is called, whatever its name', () => {
  const { temporaries } = useOf({ module: 'layer', direction: 'backward', calls: [plan('layerForward', 0)] });
  expect(temporaries.layerBackward.map(({ bytes }) => bytes)).toEqual([7, 3]);
  expect(temporaries.layerForward).toEqual([]);
});

test('layers gathered beside the own one: none, one, or two while the next is gathered a call ahead', () => {
  const zero = { section: 'gather', owner: 'zero', layer: 2 } as const;
  const turn = (...calls: readonly ReturnType<typeof plan>[]) =>
    ({ module: 'layer', direction: 'backward', calls: [zero, ...calls, plan('layerForward', 2)] }) as const;
  expect(useOf(turn()).extraLayers).toBe(0);
  expect(useOf(turn(plan('gather', 0), plan('layerRebuild', 0), plan('release', 0))).extraLayers).toBe(1);
  const ahead = turn(
    plan('gather', 0),
    plan('gather', 1),
    plan('layerRebuild', 0),
    plan('release', 0),
    plan('layerRebuild', 1),
    plan('release', 1),
  );
  expect(useOf(ahead).extraLayers).toBe(2);
});

test('every turn is an instant', () => {
  const turns: readonly (readonly [TurnShape['module'], TurnShape['direction'], string])[] = [
    ['embed', 'forward', 'embed'],
    ['layer', 'forward', 'layerForward'],
    ['head', 'forward', 'loss'],
    ['head', 'backward', 'loss'],
    ['layer', 'backward', 'layerBackward'],
    ['embed', 'backward', 'gradientReduce'],
    ['end', 'forward', 'optimizerStep'],
  ];
  for (const [module, direction, instant] of turns) expect(instantOf({ module, direction })).toBe(instant);
});
