/** Costs of a model's code by number of rows, each found once. */
import type { Code, Instruction, LayerCode, ModelCode } from '../../spec/modelCode.js';
import type { CodePlace } from '../model/facts.js';
import { type CodeWork, instructionWork, peakBytes, workOf } from '../model/liveness.js';

export type LayerCodeName = Exclude<keyof LayerCode, 'attention'>;
const LAYER_CODE_NAMES = [
  'pre',
  'preQ',
  'preKv',
  'post',
  'postKeep',
  'postBwd',
  'postBwdKept',
  'preBwd',
] as const satisfies readonly LayerCodeName[];
const END_CODE_NAMES = ['embed', 'embedBwd', 'head', 'headBwd'] as const;
export type EndCodeName = (typeof END_CODE_NAMES)[number];
export type CodeName = LayerCodeName | EndCodeName;
/** Of all code that ops run; but for the head's, each is the whole of the op kind of its name. */
export const CODE_NAMES: readonly CodeName[] = [...LAYER_CODE_NAMES, ...END_CODE_NAMES];

export function isCodeName(name: string): name is CodeName {
  return (CODE_NAMES as readonly string[]).includes(name);
}

type Known<T> = Map<CodeName, Map<number, T>>;

export class CodeCosts {
  private readonly model: ModelCode;
  private readonly place: CodePlace;
  private readonly peaks: Known<number> = new Map();
  private readonly works: Known<CodeWork> = new Map();

  constructor(model: ModelCode, place: CodePlace) {
    this.model = model;
    this.place = place;
  }

  /** The most of any kind of layer. */
  peakBytes(name: CodeName, rows: number): number {
    return remembered(this.peaks, name, rows, () => Math.max(...this.codes(name).map(({ code }) => peakBytes(code, rows, this.place))));
  }

  /** The mean over the layers. */
  work(name: CodeName, rows: number): CodeWork {
    return remembered(this.works, name, rows, () => {
      const works = this.codes(name).map(({ code, share }) => ({ ...workOf(code, rows, this.place), share }));
      const mean = (field: keyof CodeWork): number => works.reduce((sum, work) => sum + work.share * work[field], 0);
      return {
        matmulFlops: mean('matmulFlops'),
        weightBytes: mean('weightBytes'),
        elementBytes: mean('elementBytes'),
        kernels: mean('kernels'),
      };
    });
  }

  /** Of one instruction of `code`. */
  instructionWork(one: Instruction, { widths }: Code, rows: number): CodeWork {
    return instructionWork(one, widths, rows, this.place);
  }

  /** Code of a name, and the share of layers that run it. */
  codes(name: CodeName): readonly { readonly code: Code; readonly share: number }[] {
    const { classes, classOf } = this.model;
    if (isEnd(name)) return [{ code: this.model[name], share: 1 }];
    return classes.map((one, i) => ({ code: one[name], share: classOf.filter((number) => number === i).length / classOf.length }));
  }
}

function isEnd(name: CodeName): name is EndCodeName {
  return (END_CODE_NAMES as readonly string[]).includes(name);
}

/** Asked for every op of a plan: two look-ups, and no key to make. */
function remembered<T>(known: Known<T>, name: CodeName, rows: number, find: () => T): T {
  let byRows = known.get(name);
  if (byRows === undefined) {
    byRows = new Map();
    known.set(name, byRows);
  }
  let value = byRows.get(rows);
  if (value === undefined) {
    value = find();
    byRows.set(rows, value);
  }
  return value;
}
