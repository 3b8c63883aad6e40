/** Options about the data of a run. */

import { type Command, Option } from 'commander';
import { DATA_DTYPES, LONG_DOCUMENTS } from '../spec/dataChoices.js';
import { wholeNumber } from './requestOptions.js';

/** Adds `--data` and its kin; their names are those of DataChoices. */
export function withData(command: Command): Command {
  return command
    .requiredOption('--data <path>', 'text, .jsonl, FASTA, datasets folder or token ids (.npy, .bin, .bin with .idx); else bytes')
    .option('--tokenizer <folder>', 'Hugging Face tokenizer folder, or a model of the local cache, for text and rows')
    .option('--data-field <name>', 'field of a row to train on; default: text, messages or input_ids, whichever it has')
    .option('--data-weights <name>', 'field of a row with its loss weight, or one for each of its token ids')
    .addOption(new Option('--data-dtype <name>', `of a .bin without .idx; default: ${DATA_DTYPES[0]}`).choices(DATA_DTYPES))
    .option('--shuffle', 'order by seed and epoch; default: of documents, not of slices of a stream')
    .option('--no-shuffle', 'the order of the data')
    .option('--data-seed <n>', "seed of the order; default: the plan's", wholeNumber)
    .addOption(new Option('--long-documents <how>', `those longer than a sequence; default: ${LONG_DOCUMENTS[0]}`).choices(LONG_DOCUMENTS))
    .option('--data-cache <folder>', 'folder for what is made of the data once; default: .fpdt-cache beside it');
}
