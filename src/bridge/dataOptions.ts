/** How a run's data is read: what a user may choose, and what ranks and `fpdt.prepare` are told. */

import * as z from 'zod';
import { DATA_DTYPES, LONG_DOCUMENTS } from '../spec/dataChoices.js';

/** How a rank reads its data; null: by what it is. docs/data.md. */
export const dataOptionsSchema = z.strictObject({
  /** Hugging Face tokenizer folder. */
  tokenizer: z.string().nullable(),
  /** Field of a row that is trained on. */
  field: z.string().nullable(),
  /** Field of a row with loss weights. */
  weightsField: z.string().nullable(),
  /** Of a `.bin` without index. */
  dtype: z.enum(DATA_DTYPES).nullable(),
  shuffle: z.boolean().nullable(),
  seed: z.int().nonnegative().nullable(),
  longDocuments: z.enum(LONG_DOCUMENTS).nullable(),
  /** Folder for what is prepared. */
  cache: z.string().nullable(),
});
type DataOptions = z.infer<typeof dataOptionsSchema>;

/** What ranks are told of their data. */
export interface DataOfRun {
  readonly data: string;
  readonly dataOptions: DataOptions | null;
}

/** Choices about `data`; docs/data.md says which belong to what. */
export interface DataChoices {
  /** Hugging Face tokenizer folder, for text, jsonl, datasets and FASTA. */
  readonly tokenizer?: string | undefined;
  /** Field of a row to train on: its text, its messages or its token ids; left out: `text`, `messages` or `input_ids`, whichever it has. */
  readonly dataField?: string | undefined;
  /** Field of a row with its loss weight, or one for each of its token ids. */
  readonly dataWeights?: string | undefined;
  /** Of a `.bin` without `.idx`; default int32. */
  readonly dataDtype?: DataOptions['dtype'] | undefined;
  /** Whether the order is by seed and epoch; default: that of documents is, that of slices of a stream is not. */
  readonly shuffle?: boolean | undefined;
  /** Of the order; default: the plan's seed. */
  readonly dataSeed?: number | undefined;
  /** What becomes of documents longer than a sequence; default: they are refused. */
  readonly longDocuments?: DataOptions['longDocuments'] | undefined;
  /** Folder for what is prepared; default: `.fpdt-cache` beside the data. */
  readonly dataCache?: string | undefined;
}

/** The choice that sets an option. */
const CHOICES = {
  tokenizer: 'tokenizer',
  field: 'dataField',
  weightsField: 'dataWeights',
  dtype: 'dataDtype',
  shuffle: 'shuffle',
  seed: 'dataSeed',
  longDocuments: 'longDocuments',
  cache: 'dataCache',
} as const satisfies Record<keyof DataOptions, keyof DataChoices>;

/** Null where nothing was chosen. */
export function dataOptions(choices: DataChoices): DataOptions | null {
  const options: DataOptions = {
    tokenizer: choices.tokenizer ?? null,
    field: choices.dataField ?? null,
    weightsField: choices.dataWeights ?? null,
    dtype: choices.dataDtype ?? null,
    shuffle: choices.shuffle ?? null,
    seed: choices.dataSeed ?? null,
    longDocuments: choices.longDocuments ?? null,
    cache: choices.dataCache ?? null,
  };
  return Object.values(options).every((value) => value === null) ? null : options;
}

/** Where in a run's options a user set what stands at `path`. */
export function chosenPath(path: readonly PropertyKey[]): readonly PropertyKey[] {
  const [option, name, ...rest] = path;
  const choice = option === 'dataOptions' ? CHOICES[name as keyof DataOptions] : undefined;
  return choice === undefined ? path : [choice, ...rest];
}

/** As the flags of `fpdt.prepare` and `fpdt.worker`. */
export function dataFlags({ data, dataOptions: options }: DataOfRun): readonly string[] {
  const valued = {
    '--data': data,
    '--tokenizer': options?.tokenizer,
    '--data-field': options?.field,
    '--data-weights': options?.weightsField,
    '--data-dtype': options?.dtype,
    '--data-seed': options?.seed,
    '--long-documents': options?.longDocuments,
    '--data-cache': options?.cache,
  };
  const flags = Object.entries(valued).flatMap(([flag, value]) => (value === null || value === undefined ? [] : [`${flag}=${value}`]));
  const shuffle = options?.shuffle ?? null;
  return shuffle === null ? flags : [...flags, shuffle ? '--shuffle' : '--no-shuffle'];
}
