/** Temporaries of a Llama decoder layer's token-wise parts. Letters as in scratch.ts; `t` rows. */

export interface Sizes {
  readonly w: number;
  readonly h: number;
  readonly d: number;
  readonly f: number;
  readonly v: number;
  readonly q: number;
  readonly kv: number;
  readonly ownQ: number;
  readonly ownKv: number;
  readonly ownHeads: number;
  readonly ranks: number;
  readonly preElements: number;
  readonly postElements: number;
  readonly cuda: boolean;
}

/** LlamaRMSNorm per row: two fp32 rows (the copy or the product, and the square) and the fp32 scalars. */
export function normBytes({ w, h }: Sizes): number {
  return 8 * h + (w < 4 ? 8 : 4);
}

/**
 * Per row: the norm; or norm1(x), cos and sin beside the tensors of RoPE at its widest: while q is rotated (q, its two products
 * and the rotated half; k), or while k is (q before and after; k likewise four), or at the end (all five results and inputs).
 */
export function projections(s: Sizes, q: number, kv: number): number {
  const rotation = Math.max(q === 0 ? 0 : 4 * q + kv, 2 * q + 4 * kv);
  return Math.max(normBytes(s), s.w * (s.h + 2 * s.d + rotation));
}

/**
 * The backward of post, from its end to its start: of down_proj (the MLP's four wide saved tensors and two wide gradients), of
 * norm2 (fp32 rows; all gradients of the MLP's weights), of o_proj (all weight gradients).
 */
export function postBackward({ w, h, f, q, postElements }: Sizes, t: number): number {
  const down = t * (w * (3 * h + 6 * f) + 4 * h + 4) + w * f * h;
  const norm = t * (w < 4 ? 26 : 28) * h + w * (3 * f * h + h);
  const output = t * w * (2 * h + q) + w * postElements;
  return Math.max(down, norm, output);
}

/**
 * The backward of pre: of RoPE and v_proj (saved q, k with their products, upstream gradients in the model dtype), of k_proj, and
 * of norm1 (fp32 rows; all weight gradients). In fp32 the upstream gradients need no copy and norms no cast.
 */
export function preBackward({ w, h, d, q, kv, preElements }: Sizes, t: number): number {
  if (w < 4) {
    const value = t * (10 * h + 10 * q + 10 * kv + 2 * d + 4) + w * kv * h;
    const norm = t * (24 * h + 4 * q + 8 * kv) + w * preElements;
    return Math.max(value, norm);
  }
  const value = t * (12 * h + 16 * q + 12 * kv + 4 * d + 4) + w * kv * h;
  const key = t * (20 * h + 8 * q + 8 * kv + 4) + 2 * w * kv * h;
  const norm = t * (20 * h + 4 * q + 8 * kv) + w * preElements;
  return Math.max(value, key, norm);
}
