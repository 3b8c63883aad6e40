export type Dtype = 'float64' | 'float32' | 'bfloat16' | 'float16' | 'int64';

/** Dtypes of weights and activations. */
export const MODEL_DTYPES = ['float32', 'bfloat16', 'float16'] as const satisfies readonly Dtype[];
export type ModelDtype = (typeof MODEL_DTYPES)[number];

export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  float64: 8,
  float32: 4,
  bfloat16: 2,
  float16: 2,
  int64: 8,
};
