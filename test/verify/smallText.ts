/** What the small plan is made of: its buffers, its sections as text without ids and waits, and its program. */
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Dtype } from '../../src/spec/dtype.js';

export type Declared = readonly [name: string, dtype: Dtype, shape: readonly number[], more?: Partial<Buffer>];

export const STEP = { scope: 'step' } as const;
const HEAD = [8, 1, 2];
const IN_BLOCKS = { strides: [1, 4], blockRows: 4 } as const;
export const BUFFERS: readonly Declared[] = [
  ['tokenIds', 'int64', [8], STEP],
  ['positions', 'int64', [8], STEP],
  ['labels', 'int64', [8], STEP],
  ['lossSum', 'float32', [1], STEP],
  ['dx', 'float32', [8, 2], STEP],
  ['wgradHead', 'float32', [3], STEP],
  ['wgradEmbed', 'float32', [4]],
  ['wgradLayer', 'float32', [5]],
  ['x.hbm', 'float32', [8, 2]],
  ['y.hbm', 'float32', [8, 2]],
  ...['qLocal', 'kLocal', 'vLocal', 'oLocal', 'doLocal', 'dqLocal', 'dkLocal', 'dvLocal'].map((name): Declared => [name, 'float32', HEAD]),
  ...['q', 'k', 'v', 'do', 'dq', 'dk', 'dv', 'oPart', 'oAcc', 'o.hbm'].map((name): Declared => [name, 'float32', HEAD]),
  ...['lsePart', 'lseAcc', 'lse.hbm'].map((name): Declared => [name, 'float32', [8, 1], IN_BLOCKS]),
  ['x@host', 'float32', [8, 2], { pool: 'host', instances: 3, scope: 'step' }],
  ['o.host', 'float32', HEAD, { pool: 'host' }],
  ['lse.host', 'float32', [8, 1], { pool: 'host', ...IN_BLOCKS }],
  ['o.saved', 'float32', [4, 1, 2], { pool: 'disk', instances: 6, scope: 'step' }],
  ['lse.saved', 'float32', [4, 1], { pool: 'disk', instances: 6, scope: 'step', ...IN_BLOCKS }],
];

const both = (text: (rows: string, chunk: number) => string, order = [0, 1]): string =>
  order.map((chunk) => text(`[${4 * chunk}:${4 * chunk + 4})`, chunk)).join('\n');

export const SECTIONS = [
  `section embedForward(x: -> hidden+0)
   loadBatch t[0:8) w tokenIds[0:8) positions[0:8) labels[0:8)
   zero t[0:4) w lossSum[0:1)
   ${both(
     (c) => `embed t${c} r tokenIds${c} positions${c} w y.hbm${c}
             copy:d2h t${c} r y.hbm${c} w x@host#x${c}`,
   )}`,
  `section layerForward(x: hidden+0 ->, y: -> hidden+1, saved: -> attentionOutput+0)
   ${both(
     (c, chunk) => `
     copy:h2d t${c} r x@host#x${c} w x.hbm${c}
     pre t${c} r x.hbm${c} positions${c} w qLocal${c} kLocal${c} vLocal${c}
     toHeads t${c} r qLocal${c} kLocal${c} vLocal${c} w q${c} k${c} v${c}
     ${
       chunk === 0
         ? 'attn t[0:4) kv[0:4) mask causal r q[0:4) k[0:4) v[0:4) w o.hbm[0:4) lse.hbm[0:4)'
         : `attn t[4:8) kv[4:8) mask causal r q[4:8) k[4:8) v[4:8) w oPart[0:4) lsePart[0:4)
            mergeFirst t[4:8) r oPart[0:4) lsePart[0:4) w oAcc[0:4) lseAcc[0:4)
            attn t[4:8) kv[0:4) mask full r q[4:8) k[0:4) v[0:4) w oPart[4:8) lsePart[4:8)
            merge t[4:8) r oPart[4:8) lsePart[4:8) a oAcc[0:4) lseAcc[0:4)
            cast t[4:8) r oAcc[0:4) lseAcc[0:4) w o.hbm[4:8) lse.hbm[4:8)`
     }
     copy:d2h t${c} r o.hbm${c} lse.hbm${c} w o.host${c} lse.host${c}
     copy:write t${c} r o.host${c} lse.host${c} w o.saved#saved+${chunk}[0:4) lse.saved#saved+${chunk}[0:4)
     toSequence t${c} r o.hbm${c} w oLocal${c}
     post t${c} tiles 2 r x.hbm${c} oLocal${c} w y.hbm${c}
     copy:d2h t${c} r y.hbm${c} w x@host#y${c}`,
   )}`,
  `section layerRebuild(x: hidden+0 ->, y: -> hidden+1, saved: attentionOutput+0 ->)
   ${both(
     (c, chunk) => `
     copy:read t${c} r o.saved#saved+${chunk}[0:4) w o.host${c}
     copy:h2d t${c} r o.host${c} w o.hbm${c}
     copy:h2d t${c} r x@host#x${c} w x.hbm${c}
     toSequence t${c} r o.hbm${c} w oLocal${c}
     post t${c} r x.hbm${c} oLocal${c} w y.hbm${c}
     copy:d2h t${c} r y.hbm${c} w x@host#y${c}`,
   )}`,
  `section lossForward(x: hidden+3 ->, dx: -> hiddenGradient+3)
   zero t[0:4) w wgradHead[0:3)
   ${both(
     (c) => `copy:h2d t${c} r x@host#x${c} w x.hbm${c}
             loss t${c} r x.hbm${c} labels${c} w dx#dx${c} a lossSum[0:1) wgradHead[0:1) wgradHead[1:3)`,
   )}`,
  `section lossBackward(dx: hiddenGradient+3 -> hiddenGradient+3)
   rescale t[0:4) a wgradHead[0:3)
   ${both((c) => `rescale t${c} a dx#dx${c}`)}
   emitGrads t[0:4) r wgradHead[0:3)`,
  `section layerBackward(x: hidden+0 ->, dx: hiddenGradient+1 -> hiddenGradient+0, saved: attentionOutput+0 ->)
   zero t[0:4) w wgradLayer[0:5)
   ${both(
     (c) => `copy:h2d t${c} r x@host#x${c} w x.hbm${c}
             preKv t${c} r x.hbm${c} positions${c} w kLocal${c} vLocal${c}
             toHeads t${c} r kLocal${c} vLocal${c} w k${c} v${c}`,
   )}
   zero t[0:4) w dk[0:8) dv[0:8)
   ${both(
     (c, chunk) => `
     copy:read t${c} r o.saved#saved+${chunk}[0:4) lse.saved#saved+${chunk}[0:4) w o.host${c} lse.host${c}
     copy:h2d t${c} r o.host${c} lse.host${c} w o.hbm${c} lse.hbm${c}
     toSequence t${c} r o.hbm${c} w oLocal${c}
     postBwd t${c} r x.hbm${c} oLocal${c} w doLocal${c} a dx#dx${c} wgradLayer[0:5)
     preQ t${c} r x.hbm${c} positions${c} w qLocal${c}
     toHeads t${c} r doLocal${c} qLocal${c} w do${c} q${c}
     zero t${c} w dq${c}
     attnBwd t${c} kv[0:${4 * chunk + 4}) mask causal r q${c} k[0:${4 * chunk + 4}) v[0:${4 * chunk + 4}) o.hbm${c} lse.hbm${c} do${c} a dq${c} dk[0:${4 * chunk + 4}) dv[0:${4 * chunk + 4})
     toSequence t${c} r dq${c} dk${c} dv${c} w dqLocal${c} dkLocal${c} dvLocal${c}
     preBwd t${c} r x.hbm${c} positions${c} dqLocal${c} dkLocal${c} dvLocal${c} a dx#dx${c} wgradLayer[0:5)`,
     [1, 0],
   )}
   emitGrads t[0:4) r wgradLayer[0:5)`,
  `section embedBackward(dx: hiddenGradient+0 ->)
   zero t[0:4) w wgradEmbed[0:4)
   ${both((c) => `embedBwd t${c} r dx#dx${c} tokenIds${c} positions${c} a wgradEmbed[0:4)`)}
   emitGrads t[0:4) r wgradEmbed[0:4)`,
  ...['gather', 'release', 'reduce', 'optimizerStep'].map((kind) => `section ${kind}()\n${kind} t[0:0)`),
];

export const PROGRAM = `
embed forward: gather() by zero
embed forward: embedForward(x=0)
layer 0 forward: layerForward(x=0, y=2, saved=0) layer 0
layer 1 forward: layerForward(x=2, y=1, saved=2) layer 1
layer 2 forward: layerForward(x=1, y=2, saved=4) layer 2
head forward: lossForward(x=2, dx=0)
head backward: lossBackward(dx=0)
layer 2 backward: layerBackward(x=1, dx=0, saved=4) layer 2
layer 2 backward: reduce() layer 2 by zero
layer 1 backward: gather() layer 0
layer 1 backward: layerRebuild(x=0, y=2, saved=0) layer 0
layer 1 backward: release() layer 0
layer 1 backward: layerBackward(x=2, dx=0, saved=2) layer 1
layer 0 backward: layerBackward(x=0, dx=0, saved=0) layer 0
embed backward: embedBackward(dx=0)
end forward: optimizerStep() by zero`;
