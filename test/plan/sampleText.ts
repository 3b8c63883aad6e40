/**
 * A small schedule written by hand, as op and program text: two classes of layers (attention output kept on the device, or on disk
 * two hops away), and a segment of two layers whose second input is rebuilt. 3 layers, 2 chunks of 32 tokens on 2 ranks.
 */

/** Per pool the buffers, in order of their ids: name, dtype, shape, instances, and what lives for the whole micro-step. */
export const BUFFERS = {
  hbm: [
    'tokenIds int64 [32] step',
    'positions int64 [32] step',
    'labels int64 [32] step',
    'x float32 [32,8] x4 step',
    'dx float32 [32,8] step',
    'qLocal float32 [32,2,4]',
    'kLocal float32 [32,2,4]',
    'vLocal float32 [32,2,4]',
    'oLocal float32 [32,2,4]',
    'doLocal float32 [32,2,4]',
    'dqLocal float32 [32,2,4]',
    'dkLocal float32 [32,2,4]',
    'dvLocal float32 [32,2,4]',
    'q float32 [64,1,4]',
    'k float32 [64,1,4]',
    'v float32 [64,1,4]',
    'o float32 [64,1,4]',
    'lse float32 [64,1]',
    'oPart float32 [32,1,4]',
    'lsePart float32 [32,1]',
    'oAcc float32 [32,1,4]',
    'lseAcc float32 [32,1]',
    'o.saved float32 [64,1,4] x2 step',
    'lse.saved float32 [64,1] x2 step',
    'do float32 [64,1,4]',
    'dq.ring float32 [64,1,4]',
    'dk float32 [64,1,4]',
    'dv float32 [64,1,4]',
    'lossSum float32 [1] step',
    'wgradLayer float32 [656]',
    'wgradHead float32 [264] step',
    'wgradEmbed float32 [256]',
  ],
  host: ['o.staged@host float32 [32,1,4]', 'lse.staged@host float32 [32,1]'],
  disk: ['o.saved@disk float32 [32,1,4] x2 step', 'lse.saved@disk float32 [32,1] x2 step'],
} as const;

/** Forward of a layer up to the result of attention, which goes to `o` and `lse`. */
const attention = (o: string, lse: string): string => `
  0 pre t[0:32) r x#x[0:16) positions[0:16) w qLocal[0:16) kLocal[0:16) vLocal[0:16) scratch 4096
  1 toHeads t[0:32) r qLocal[0:16) kLocal[0:16) vLocal[0:16) w q[0:32) k[0:32) v[0:32) after 0
  2 pre t[32:64) r x#x[16:32) positions[16:32) w qLocal[16:32) kLocal[16:32) vLocal[16:32) scratch 4096
  3 toHeads t[32:64) r qLocal[16:32) kLocal[16:32) vLocal[16:32) w q[32:64) k[32:64) v[32:64) after 2
  4 attn t[0:32) kv[0:32) mask causal r q[0:32) k[0:32) v[0:32) w ${o}[0:32) ${lse}[0:32) after 1 scratch 512
  5 attn t[32:64) kv[0:32) mask full r q[32:64) k[0:32) v[0:32) w oPart[0:32) lsePart[0:32) after 3 scratch 512
  6 mergeFirst t[32:64) r oPart[0:32) lsePart[0:32) w oAcc[0:32) lseAcc[0:32)
  7 attn t[32:64) kv[32:64) mask causal r q[32:64) k[32:64) v[32:64) w oPart[0:32) lsePart[0:32) scratch 512
  8 merge t[32:64) r oPart[0:32) lsePart[0:32) a oAcc[0:32) lseAcc[0:32)
  9 cast t[32:64) r oAcc[0:32) lseAcc[0:32) w ${o}[32:64) ${lse}[32:64)
  10 toSequence t[0:32) r ${o}[0:32) w oLocal[0:16) after 4
  11 toSequence t[32:64) r ${o}[32:64) w oLocal[16:32) after 9
  12 post t[0:32) r x#x[0:16) oLocal[0:16) w x#y[0:16) after 10 scratch 8192
  13 post t[32:64) r x#x[16:32) oLocal[16:32) w x#y[16:32) after 11 scratch 8192`;

/** Backward of a layer, descending, from where o and lse are at hand; ids from `first`. */
function backward(first: number, o: string, lse: string): string {
  const rows = ['[0:16)', '[16:32)'] as const;
  const tokens = ['[0:32)', '[32:64)'] as const;
  const lines: string[] = [];
  let id = first;
  const add = (text: string): number => {
    lines.push(`  ${id} ${text}`);
    return id++;
  };
  add('zero t[0:64) w wgradLayer[0:656)');
  for (const i of [0, 1] as const) {
    const pre = add(`preKv t${tokens[i]} r x#x${rows[i]} positions${rows[i]} w kLocal${rows[i]} vLocal${rows[i]} scratch 4096`);
    add(`toHeads t${tokens[i]} r kLocal${rows[i]} vLocal${rows[i]} w k${tokens[i]} v${tokens[i]} after ${pre}`);
  }
  add('zero t[0:64) w dk[0:64) dv[0:64)');
  for (const i of [1, 0] as const) {
    const exchange = add(`toSequence t${tokens[i]} r ${o}${tokens[i]} w oLocal${rows[i]}${first === 0 ? '' : ` after ${first - 1}`}`);
    const post = `r x#x${rows[i]} oLocal${rows[i]} w doLocal${rows[i]} a dx#dx${rows[i]} wgradLayer[0:656)`;
    add(`postBwd t${tokens[i]} ${post} after ${exchange} scratch 16384`);
    const pre = add(`preQ t${tokens[i]} r x#x${rows[i]} positions${rows[i]} w qLocal${rows[i]} scratch 4096`);
    const heads = add(`toHeads t${tokens[i]} r doLocal${rows[i]} qLocal${rows[i]} w do${tokens[i]} q${tokens[i]} after ${pre}`);
    add(`zero t${tokens[i]} w dq.ring${tokens[i]}`);
    let last = heads;
    for (const j of i === 1 ? ([0, 1] as const) : ([0] as const)) {
      const reads = `q${tokens[i]} k${tokens[j]} v${tokens[j]} ${o}${tokens[i]} ${lse}${tokens[i]} do${tokens[i]}`;
      const sums = `dq.ring${tokens[i]} dk${tokens[j]} dv${tokens[j]}`;
      last = add(
        `attnBwd t${tokens[i]} kv${tokens[j]} mask ${i === j ? 'causal' : 'full'} r ${reads} a ${sums} after ${heads} scratch 1024`,
      );
    }
    const back = `r dq.ring${tokens[i]} dk${tokens[i]} dv${tokens[i]} w dqLocal${rows[i]} dkLocal${rows[i]} dvLocal${rows[i]}`;
    const sequence = add(`toSequence t${tokens[i]} ${back} after ${last}`);
    const gradients = `dqLocal${rows[i]} dkLocal${rows[i]} dvLocal${rows[i]}`;
    const pre2 = `r x#x${rows[i]} positions${rows[i]} ${gradients} a dx#dx${rows[i]} wgradLayer[0:656)`;
    add(`preBwd t${tokens[i]} ${pre2} after ${sequence} scratch 8192`);
  }
  add('emitGrads t[0:64) r wgradLayer[0:656)');
  return lines.join('\n');
}

const external = (kind: string): string => `section ${kind}()\n  0 ${kind} t[0:0)`;

export const SECTIONS: readonly string[] = [
  `section embedForward(x: -> hidden+0)
  0 loadBatch t[0:64) w tokenIds[0:32) positions[0:32) labels[0:32)
  1 zero t[0:64) w lossSum[0:1)
  2 embed t[0:32) r tokenIds[0:16) positions[0:16) w x#x[0:16)
  3 embed t[32:64) r tokenIds[16:32) positions[16:32) w x#x[16:32)`,
  `section layerForward(x: hidden+0 ->, y: -> hidden+1, saved: -> attentionOutput+0)${attention('o.saved#saved', 'lse.saved#saved')}`,
  `section layerForward.1(x: hidden+0 ->, y: -> hidden+1, saved: -> attentionOutput+0)${attention('o', 'lse')}
  14 copy:d2h t[0:32) r o[0:32) lse[0:32) w o.staged@host[0:32) lse.staged@host[0:32) after 4
  15 copy:write t[0:32) r o.staged@host[0:32) lse.staged@host[0:32) w o.saved@disk#saved[0:32) lse.saved@disk#saved[0:32) after 14
  16 copy:d2h t[32:64) r o[32:64) lse[32:64) w o.staged@host[0:32) lse.staged@host[0:32) after 9 15
  17 copy:write t[32:64) r o.staged@host[0:32) lse.staged@host[0:32) w o.saved@disk#saved+1[0:32) lse.saved@disk#saved+1[0:32) after 16`,
  `section lossForward(x: hidden+3 ->, dx: -> hiddenGradient+3)
  0 zero t[0:64) w wgradHead[0:264)
  1 loss t[0:32) r x#x[0:16) labels[0:16) w dx#dx[0:16) a lossSum[0:1) wgradHead[0:8) wgradHead[8:264) scratch 4096
  2 loss t[32:64) r x#x[16:32) labels[16:32) w dx#dx[16:32) a lossSum[0:1) wgradHead[0:8) wgradHead[8:264) scratch 4096`,
  `section lossBackward(dx: hiddenGradient+3 -> hiddenGradient+3)
  0 rescale t[0:64) a wgradHead[0:264)
  1 rescale t[0:64) a dx#dx[0:32)
  2 emitGrads t[0:64) r wgradHead[0:264)`,
  `section layerRebuild(x: hidden+0 ->, y: -> hidden+1, saved: attentionOutput+0 ->)
  0 toSequence t[0:32) r o.saved#saved[0:32) w oLocal[0:16)
  1 toSequence t[32:64) r o.saved#saved[32:64) w oLocal[16:32)
  2 post t[0:32) r x#x[0:16) oLocal[0:16) w x#y[0:16) after 0 scratch 8192
  3 post t[32:64) r x#x[16:32) oLocal[16:32) w x#y[16:32) after 1 scratch 8192`,
  `section layerBackward(x: hidden+0 ->, dx: hiddenGradient+1 -> hiddenGradient+0, saved: attentionOutput+0 ->)
${backward(0, 'o.saved#saved', 'lse.saved#saved')}`,
  `section layerBackward.1(x: hidden+0 ->, dx: hiddenGradient+1 -> hiddenGradient+0, saved: attentionOutput+0 ->)
  0 copy:read t[32:64) r o.saved@disk#saved+1[0:32) lse.saved@disk#saved+1[0:32) w o.staged@host[0:32) lse.staged@host[0:32)
  1 copy:h2d t[32:64) r o.staged@host[0:32) lse.staged@host[0:32) w o[32:64) lse[32:64) after 0
  2 copy:read t[0:32) r o.saved@disk#saved[0:32) lse.saved@disk#saved[0:32) w o.staged@host[0:32) lse.staged@host[0:32) after 1
  3 copy:h2d t[0:32) r o.staged@host[0:32) lse.staged@host[0:32) w o[0:32) lse[0:32) after 2
${backward(4, 'o', 'lse')}`,
  `section embedBackward(dx: hiddenGradient+0 ->)
  0 zero t[0:64) w wgradEmbed[0:256)
  1 embedBwd t[0:32) r dx#dx[0:16) tokenIds[0:16) positions[0:16) a wgradEmbed[0:256)
  2 embedBwd t[32:64) r dx#dx[16:32) tokenIds[16:32) positions[16:32) a wgradEmbed[0:256)
  3 emitGrads t[0:64) r wgradEmbed[0:256)`,
  ...['gather', 'release', 'reduce', 'optimizerStep'].map(external),
];

export const PROGRAM = `
embed forward: gather() by zero
embed forward: embedForward(x=0) waits all
embed forward: release() by zero
layer 0 forward: gather() layer 0 by zero
layer 0 forward: layerForward(x=0, y=1, saved=0) layer 0 waits all
layer 0 forward: release() layer 0 by zero
layer 1 forward: gather() layer 1 by zero
layer 1 forward: layerForward(x=1, y=2, saved=1) layer 1 waits compute<comm comm<compute
layer 1 forward: release() layer 1 by zero
layer 2 forward: gather() layer 2 by zero
layer 2 forward: layerForward.1(x=2, y=3, saved=0) layer 2 waits all
layer 2 forward: release() layer 2 by zero
head forward: gather() by zero
head forward: lossForward(x=3, dx=0) waits all
head forward: release() by zero
head backward: gather() by zero
head backward: lossBackward(dx=0) waits all
head backward: release() by zero
head backward: reduce() by zero
layer 2 backward: gather() layer 2 by zero
layer 2 backward: layerBackward.1(x=2, dx=0, saved=0) layer 2 waits all
layer 2 backward: release() layer 2 by zero
layer 2 backward: reduce() layer 2 by zero
layer 1 backward: gather() layer 1 by zero
layer 1 backward: gather() layer 0
layer 1 backward: layerRebuild(x=0, y=1, saved=0) layer 0 waits all
layer 1 backward: release() layer 0
layer 1 backward: layerBackward(x=1, dx=0, saved=1) layer 1 waits all
layer 1 backward: release() layer 1 by zero
layer 1 backward: reduce() layer 1 by zero
layer 0 backward: gather() layer 0 by zero
layer 0 backward: layerBackward(x=0, dx=0, saved=0) layer 0 waits all
layer 0 backward: release() layer 0 by zero
layer 0 backward: reduce() layer 0 by zero
embed backward: gather() by zero
embed backward: embedBackward(dx=0) waits all
embed backward: release() by zero
embed backward: reduce() by zero
end forward: optimizerStep() by zero
`;
