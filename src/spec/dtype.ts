export type Dtype = 'float64' | 'float32' | 'bfloat16' | 'float16' | 'int64';

export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  float64: 8,
  float32: 4,
  bfloat16: 2,
  float16: 2,
  int64: 8,
};
