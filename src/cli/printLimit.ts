/** What `max-seq`, `min-gpus` and `min-host` print. */
import { type Limit, limitToJson, limitToText } from '../report/limitText.js';
import { type Output, printJson } from './output.js';
import type { Options } from './planInput.js';

export interface LimitOptions extends Options {
  readonly policy?: string;
  readonly price?: number;
  readonly json?: boolean;
}

export function printLimit(limit: Limit, { json, price }: LimitOptions, output: Output): void {
  if (json === true) printJson(output, limitToJson(limit, price));
  else output.out(limitToText(limit, price));
}
