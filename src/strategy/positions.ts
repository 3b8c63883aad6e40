/** Learned positions: a model has as many as its table has rows. */
import { FpdtError } from '../spec/errors.js';
import type { ModelSpec, RunSpec } from '../spec/types.js';

/** Throws `too-long` where a token of the sequence, or of its padding, would look up a position past the table's end. */
export function refusePositionsPastTable({ code }: Pick<ModelSpec, 'code'>, { seqLen, paddedSeqLen }: RunSpec): void {
  for (const { op, reads, weights, attributes } of code.embed.instructions) {
    const [table] = weights;
    if (op !== 'lookup' || !reads.includes('@positions') || table === undefined) continue;
    const most = (table.shape[0] ?? 0) - Number(attributes.offset ?? 0);
    if (paddedSeqLen <= most) continue;
    const padded = paddedSeqLen === seqLen ? '' : `, padded to ${paddedSeqLen},`;
    throw new FpdtError(`run.seqLen ${seqLen}${padded} is past the ${most} learned positions of the model (${table.name})`, {
      code: 'too-long',
      hint: `a sequence can have at most ${most} tokens; models with rotary positions have no such end`,
    });
  }
}
