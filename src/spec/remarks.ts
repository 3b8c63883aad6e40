/** What a user may not expect of a choice that is legal: it costs something, or has no effect. Each is one sentence. */
import { deepspeedRemarks } from './deepspeedRemarks.js';
import { kvCopies, ownHeads, ownKvHeads, type ParallelLayout, paddedHeads } from './parallelLayout.js';
import type { NamedPool } from './pools.js';
import { RECOMPUTE, type Strategy } from './strategy.js';
import type { DeepSpeedConfig, ModelSpec, RunSpec } from './types.js';

export interface RemarkInput {
  readonly layout: ParallelLayout;
  readonly strategy: Strategy;
  readonly pools: readonly NamedPool[];
  readonly model: Pick<ModelSpec, 'hfConfig'>;
  readonly run: Pick<RunSpec, 'seqLen' | 'dtype' | 'zeroStage' | 'packing'>;
  readonly deepspeed: DeepSpeedConfig;
}

export function remarks({ layout, strategy, pools, model, run, deepspeed }: RemarkInput): readonly string[] {
  return [
    copiesRemark(layout),
    paddingRemark(layout),
    tileRemark(strategy, pools),
    ...rebuiltRemarks(strategy),
    lengthRemark(model, run),
    packingRemark(run),
    ...deepspeedRemarks(deepspeed, run),
  ].filter((text) => text !== undefined);
}

/** Rotary positions go on for ever, but a model has learned from those that its config names. */
function lengthRemark({ hfConfig }: RemarkInput['model'], { seqLen }: RemarkInput['run']): string | undefined {
  const most = hfConfig.max_position_embeddings;
  if (typeof most !== 'number' || seqLen <= most) return undefined;
  return `the config's max_position_embeddings is ${most}: of ${seqLen} positions the model has learned the first ${most}, see rope_theta and rope_scaling`;
}

/** Which documents a step has is known when it runs. */
function packingRemark({ packing, seqLen }: RemarkInput['run']): string | undefined {
  return packing === true
    ? `time and copies are those of one document of ${seqLen} tokens in each sequence: packed documents take less`
    : undefined;
}

function copiesRemark(layout: ParallelLayout): string | undefined {
  const copies = kvCopies(layout);
  if (copies === 1) return undefined;
  const ranks = layout.heads.keyValue.length;
  return `${ranks} sequence parallel ranks hold up to ${copies} copies of a key/value head (${ownKvHeads(layout)} on each rank)`;
}

function paddingRemark(layout: ParallelLayout): string | undefined {
  const padded = paddedHeads(layout);
  if (padded === 0) return undefined;
  const places = layout.heads.query.length * ownHeads(layout);
  return `${padded} of ${places} places for query heads are padding: that share of the attention work is wasted`;
}

function tileRemark({ kvTileChunks, layers }: Strategy, pools: readonly NamedPool[]): string | undefined {
  const onDevice = pools.filter(({ kind }) => kind === 'device').map(({ name }) => name);
  if (kvTileChunks === 1 || layers.some(({ keyValues }) => !onDevice.includes(keyValues))) return undefined;
  return `kvTileChunks=${kvTileChunks} has no effect: keys and values of every layer stay on the device`;
}

function rebuiltRemarks({ layers }: Strategy): readonly string[] {
  return layers.flatMap(({ layers: [start, end], attentionOutput, rebuiltOutput = RECOMPUTE, rebuildsLast = false, segments }) => {
    const ofLayers = `of layers ${start}-${end - 1} has no effect`;
    if (rebuiltOutput === RECOMPUTE)
      return rebuildsLast ? [`rebuildsLast ${ofLayers}: no outputs are kept once rebuilt (rebuiltOutput)`] : [];
    const which = `rebuiltOutput=${rebuiltOutput} ${ofLayers}`;
    if (attentionOutput !== RECOMPUTE) return [`${which}: their attention output is kept in ${attentionOutput} from forward on`];
    return segments.some((length) => length > 1) ? [] : [`${which}: each has a checkpoint of its own, so none is rebuilt`];
  });
}
