import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Turn, turnName } from '../../src/schedule/program.js';
import { type Schedule, sectionNamed } from '../../src/schedule/schedule.js';
import { RECOMPUTE } from '../../src/spec/strategy.js';
import type { PolicyName } from '../../src/spec/types.js';
import { anyPlacement, EVERY_KIND, type Small, type SmallRange, smallSchedule } from './context.js';

const numOps = ({ sections }: Schedule): number => sections.reduce((sum, { ops }) => sum + ops.length, 0);
const turnsOf = (schedule: Schedule): readonly Turn[] => schedule.programs.train.turns;

describe('the size of a program', () => {
  const CASES: readonly (readonly [PolicyName, Small])[] = [
    ['ulysses', {}],
    ['fpdt', {}],
    ['auto', {}],
    ['auto', { attentionOutput: 'host', checkpoints: 'host' }],
    ['auto', { attentionOutput: RECOMPUTE, keyValues: 'host', keyValueGradients: 'host' }],
    ['auto', { attentionOutput: 'disk', checkpoints: 'disk' }],
    ['fpdt', { rebuiltOutput: 'hbm' }],
    ['fpdt', { rebuiltOutput: 'host', rebuildsLast: true }],
  ];

  it.each(CASES)('%s %o: ops and sections do not grow with the layers of a segment', (policy, more) => {
    const sizes = [2, 3, 4, 6, 12].map((segmentLayers) => {
      const schedule = smallSchedule(policy, policy === 'ulysses' ? 1 : 3, { ...more, segmentLayers, model: { numLayers: 12 } });
      return [schedule.sections.map(({ name }) => name), numOps(schedule)];
    });
    for (const size of sizes) expect(size).toEqual(sizes[0]);
  });

  it('outputs of all layers kept by a rebuild: one kind of backward, whose attention is not run again', () => {
    const sectionsOf = (rebuildsLast: boolean) =>
      smallSchedule('fpdt', 3, { rebuiltOutput: 'host', rebuildsLast, segmentLayers: 3 }).sections.filter(({ name }) =>
        name.startsWith('layer'),
      );
    const some = ['layerForward', 'layerForward.2', 'layerBackward', 'layerBackward.2'];
    expect(sectionsOf(false).map(({ name }) => name)).toEqual(some);
    expect(sectionsOf(true).map(({ name }) => name)).toEqual(['layerForward', 'layerAttend.2', 'layerRebuild.2', 'layerBackward.2']);
    expect(sectionsOf(true).flatMap(({ name, ops }) => (ops.some(({ kind }) => kind === 'attn') ? [name] : []))).toEqual([
      'layerForward',
      'layerAttend.2',
    ]);
  });

  it('m ranges of layers take at most m + 1 times the ops of the costliest of them', () => {
    fc.assert(
      fc.property(fc.array(anyPlacement(), { minLength: 1, maxLength: 5 }), fc.integer({ min: 1, max: 3 }), (placements, segmentLayers) => {
        const ranged = smallSchedule('auto', 3, rangesOf(placements, segmentLayers));
        const alone = placements.map((placement) => numOps(smallSchedule('auto', 3, rangesOf([placement], segmentLayers))));
        expect(numOps(ranged)).toBeLessThanOrEqual((placements.length + 1) * Math.max(...alone));
      }),
    );
  });

  it('ranges that are alike share their sections, whatever their segments', () => {
    const ranges = [
      { layers: [0, 2], segments: [2] },
      { layers: [2, 6], segments: [3, 1] },
    ] as const satisfies readonly SmallRange[];
    const names = smallSchedule('auto', 3, { ranges, model: { numLayers: 6 } }).sections.map(({ name }) => name);
    expect(names.filter((name) => name.startsWith('layer'))).toEqual(['layerForward', 'layerRebuild', 'layerBackward']);
  });

  it('layers with another window are another class', () => {
    const masks = { rectangle: true, window: true };
    const schedule = smallSchedule('auto', 3, { masks, model: { windows: [null, 70, null, 70] } });
    const forward = turnsOf(schedule).filter(({ module, direction }) => module === 'layer' && direction === 'forward');
    expect(forward.map(({ calls }) => calls.find(({ owner }) => owner === 'plan')?.section)).toEqual([
      'layerForward',
      'layerForward.2',
      'layerForward',
      'layerForward.2',
    ]);
  });
});

describe('instances of the hidden states', () => {
  const instances = (more: Small, name: string): number | undefined =>
    smallSchedule('auto', 3, { attentionOutput: RECOMPUTE, ...more }).buffers.find((one) => one.name === name)?.instances;

  it('away from the device one for each layer with a checkpoint of its own, or for each checkpoint and place in a segment', () => {
    for (const pool of ['host', 'disk']) {
      const chunks = pool === 'disk' ? 3 : 1;
      expect(instances({ checkpoints: pool }, `x@${pool}`)).toBe(chunks * 4);
      expect(instances({ checkpoints: pool, segmentLayers: 2 }, `x@${pool}`)).toBe(chunks * (2 + 1));
      expect(instances({ checkpoints: pool, segmentLayers: 4 }, `x@${pool}`)).toBe(chunks * (1 + 3));
      expect(instances({ checkpoints: pool, segmentLayers: 3 }, `x@${pool}`)).toBe(chunks * (2 + 2));
    }
  });

  it('on the device one more, which the head reads', () => {
    expect(instances({ checkpoints: 'hbm' }, 'x')).toBe(4 + 1);
    expect(instances({ checkpoints: 'hbm', segmentLayers: 2 }, 'x')).toBe(2 + 1 + 1);
  });

  it('the last layer takes the place of its input, which waits in that of dx where no rebuild forms it again', () => {
    const calls = (more: Small): readonly string[] => {
      const turns = turnsOf(smallSchedule('auto', 3, { checkpoints: 'host', ...more }));
      const own = turns.flatMap((turn) => (turnName(turn) === 'layer 3 forward' ? turn.calls.filter(({ owner }) => owner === 'plan') : []));
      return own.map(({ section, args }) => `${section} ${args.slice(0, 2).join()}`);
    };
    expect(calls({})).toEqual(['stash 3,0', 'layerForward 3,3']);
    expect(calls({ segmentLayers: 3 })).toEqual(['stash 1,0', 'layerForward 1,1']);
    expect(calls({ segmentLayers: 2 })).toEqual(['layerForward 2,2']);
    expect(calls({ checkpoints: 'hbm' })).toEqual(['layerForward 3,4']);
  });

  it('only as many hidden states are kept as there are checkpoints, layers inside the longest segment, and a last one', () => {
    const instances = (more: Small): readonly string[] =>
      smallSchedule('auto', 2, more)
        .buffers.filter(({ name }) => /^x(@host)?$/.test(name))
        .map(({ name, instances: count }) => `${name} ${count}`);
    const model = { numLayers: 12 };
    expect(instances({ model })).toEqual(['x 13']);
    expect(instances({ model, segmentLayers: 4 })).toEqual(['x 7']);
    expect(instances({ model, segmentLayers: 5 })).toEqual(['x 8']);
    const ranges = [
      { layers: [0, 6], checkpoints: 'host', segments: [3, 3] },
      { layers: [6, 12], segments: [2, 2, 2] },
    ] as const;
    // On the host two checkpoints, two inside a segment and the output of layer 5; on the device three, one and the last.
    expect(instances({ model, ranges })).toEqual(['x@host 5', 'x 5']);
  });
});

describe('how often attention of a layer runs in a step', () => {
  const runsOf = (more: Small): readonly number[] => {
    const schedule = smallSchedule('auto', 3, { attentionOutput: RECOMPUTE, ...more });
    const attends = (name: string): boolean => sectionNamed(schedule.sections, name).ops.some(({ kind }) => kind === 'attn');
    const calls = turnsOf(schedule).flatMap((turn) => turn.calls.filter(({ owner, section }) => owner === 'plan' && attends(section)));
    return Array.from({ length: 4 }, (_, layer) => calls.filter((call) => call.layer === layer).length);
  };

  it('twice where its output is recomputed, a third time where a rebuild forms it and does not keep it', () => {
    expect(runsOf({})).toEqual([2, 2, 2, 2]);
    expect(runsOf({ segmentLayers: 3 })).toEqual([3, 3, 2, 2]);
    for (const rebuiltOutput of ['hbm', 'host', 'disk']) expect(runsOf({ segmentLayers: 3, rebuiltOutput })).toEqual([2, 2, 2, 2]);
    expect(runsOf({ segmentLayers: 4, rebuiltOutput: 'host' })).toEqual([2, 2, 2, 2]);
    expect(runsOf({ segmentLayers: 3, rebuiltOutput: RECOMPUTE })).toEqual([3, 3, 2, 2]);
    expect(runsOf({ segmentLayers: 3, rebuiltOutput: 'host', rebuildsLast: true })).toEqual([2, 2, 2, 2]);
    expect(runsOf({ rebuiltOutput: 'host', rebuildsLast: true })).toEqual([2, 2, 2, 2]);
  });

  it('once where it is kept, whatever its rebuild would keep', () => {
    expect(runsOf({ segmentLayers: 3, attentionOutput: 'host', rebuiltOutput: 'hbm' })).toEqual([1, 1, 1, 1]);
  });

  it('outputs kept by a rebuild have an instance for each layer of the longest segment, for its last one where that is kept too', () => {
    const ranges = [
      { layers: [0, 4], segments: [3, 1] },
      { layers: [4, 6], segments: [2] },
    ] as const satisfies readonly SmallRange[];
    const more = { ranges, attentionOutput: RECOMPUTE, rebuiltOutput: 'host', model: { numLayers: 6 } };
    for (const rebuildsLast of [false, true]) {
      const { buffers } = smallSchedule('auto', 3, { ...more, rebuildsLast });
      for (const name of ['o.rebuilt@host', 'lse.rebuilt@host']) {
        expect(buffers.find((one) => one.name === name)?.instances).toBe(rebuildsLast ? 3 : 2);
      }
    }
  });
});

describe('turns', () => {
  it.each(EVERY_KIND)('%s: each module forward, then backward, and the end', (_name, policy, numChunks, more) => {
    const numLayers = more.model?.numLayers ?? 4;
    const layers = Array.from({ length: numLayers }, (_, layer) => layer);
    expect(turnsOf(smallSchedule(policy, numChunks, more)).map(turnName)).toEqual([
      'embed forward',
      ...layers.map((layer) => `layer ${layer} forward`),
      'head forward',
      'head backward',
      ...layers.toReversed().map((layer) => `layer ${layer} backward`),
      'embed backward',
      'end forward',
    ]);
  });

  it.each([
    [0, '', 'zero reduce'],
    [1, '', 'zero reduce'],
    [2, 'zero reduce', ''],
    [3, 'zero gather, zero release, zero reduce', ''],
  ] as const)("ZeRO stage %i does '%s' around a backward turn and '%s' before the engine's step", (zeroStage, around, before) => {
    const turns = turnsOf(smallSchedule('auto', 2, { run: { zeroStage } }));
    const calls = (name: string): string =>
      (turns.find((turn) => turnName(turn) === name)?.calls ?? [])
        .filter(({ section }) => !section.startsWith('layer'))
        .map(({ owner, section }) => `${owner} ${section}`)
        .join(', ');
    expect(calls('layer 2 backward')).toBe(around);
    expect(calls('layer 2 forward')).toBe(zeroStage === 3 ? 'zero gather, zero release' : '');
    expect(calls('end forward')).toBe(before === '' ? 'plan optimizerStep' : `${before}, plan optimizerStep`);
  });

  it('unequal segments rebuild the inputs of their later layers, first to last, under weights gathered one call ahead', () => {
    const ranges = [{ layers: [0, 7], segments: [4, 1, 2] }] as const;
    const schedule = smallSchedule('auto', 2, { ranges, model: { numLayers: 7 } });
    const own = (layer: number): string =>
      (turnsOf(schedule).find((turn) => turnName(turn) === `layer ${layer} backward`)?.calls ?? [])
        .filter(({ owner }) => owner === 'plan')
        .map((call) => `${call.section}${call.layer}`)
        .join(' ');
    expect(own(3)).toBe('gather0 gather1 layerRebuild0 release0 gather2 layerRebuild1 release1 layerRebuild2 release2 layerBackward3');
    expect([4, 2, 1, 0].map(own)).toEqual([4, 2, 1, 0].map((layer) => `layerBackward${layer}`));
    expect(own(6)).toBe('gather5 layerRebuild5 release5 layerBackward6');
  });

  it('where the last layer is rebuilt too, its attention comes before its backward, under its own weights', () => {
    const ranges = [{ layers: [0, 4], segments: [3, 1] }] as const;
    const schedule = smallSchedule('fpdt', 2, { ranges, rebuiltOutput: 'host', rebuildsLast: true });
    const own = (layer: number): string =>
      (turnsOf(schedule).find((turn) => turnName(turn) === `layer ${layer} backward`)?.calls ?? [])
        .filter(({ owner }) => owner === 'plan')
        .map((call) => `${call.section}${call.layer}`)
        .join(' ');
    expect(own(3)).toBe('layerAttend.23 layerBackward.23');
    expect(own(2)).toBe(
      'gather0 gather1 layerAttend.20 layerRebuild.20 release0 layerAttend.21 layerRebuild.21 release1 layerAttend.22 layerBackward.22',
    );
    expect([1, 0].map(own)).toEqual(['layerBackward.21', 'layerBackward.20']);
  });

  it('where outputs are not kept, a layer is rebuilt by its forward', () => {
    const { sections, programs } = smallSchedule('fpdt', 2, { segmentLayers: 4 });
    expect(sections.map(({ name }) => name)).not.toContain('layerRebuild');
    const turn = programs.train.turns.find((one) => turnName(one) === 'layer 3 backward');
    expect(turn?.calls.filter(({ section }) => section === 'layerForward').map(({ layer }) => layer)).toEqual([0, 1, 2]);
  });

  it('hidden states are moved where the pool of the checkpoints changes, and nowhere else', () => {
    const ranges = [
      { layers: [0, 1], checkpoints: 'host' },
      { layers: [1, 3], checkpoints: 'disk', segments: [2] },
      { layers: [3, 4], checkpoints: 'disk', attentionOutput: 'host' },
      { layers: [4, 5], checkpoints: 'host' },
      { layers: [5, 6], checkpoints: 'disk' },
    ] as const satisfies readonly SmallRange[];
    const schedule = smallSchedule('auto', 2, { ranges, model: { numLayers: 6 } });
    const moves = turnsOf(schedule).flatMap((turn) =>
      turn.calls.filter(({ section }) => section.startsWith('relocate')).map(({ section }) => `${turnName(turn)}: ${section}`),
    );
    expect(moves).toEqual(['layer 1 forward: relocate', 'layer 4 forward: relocate.2', 'layer 5 forward: relocate']);
  });
});

function rangesOf(placements: readonly Partial<SmallRange>[], segmentLayers: number): Small {
  const ranges = placements.map((placement, i): SmallRange => ({ ...placement, layers: [3 * i, 3 * i + 3] }));
  return { ranges, segmentLayers, model: { numLayers: 3 * placements.length } };
}
