/** The op vocabulary, and what an op costs. */
export { drawOp } from './draw.js';
export { CODE_NAMES, type CodeName, isCodeName } from './codeCosts.js';
export { hasTemporaries, ofGroup, opWork, temporaryBytes, tileRows } from './formulas.js';
export { maskPairs } from './masks.js';
export type { DrawnChunks, OpRow, OpStream, OpWork, ViewNames } from './row.js';
export { opSizes, type OpSizes, type OpSizesInput } from './sizes.js';
export { OP_KIND_NAMES, OP_ROWS, type OpKind, type OpKindRow, type OpShape } from './table.js';
export {
  type AccessShape,
  type AttributeShape,
  type BufferShape,
  type MaskShape,
  type OpViews,
  type RowRange,
  rowBytes,
  rowsOf,
  viewBytes,
} from './views.js';
