/** Choices as one text of an option: `checkpoints=none,tiledMlp=off`. */
import { FpdtError } from './errors.js';

/** Names and values in their order. Throws `invalid-value`, with the `example` in its hint, for a text that is no list of pairs. */
export function textPairs(text: string, what: string, example: string): readonly (readonly [string, string])[] {
  return text.split(',').map((item) => {
    const [name = '', value = '', ...rest] = item.split('=').map((part) => part.trim());
    if (name !== '' && value !== '' && rest.length === 0) return [name, value];
    throw new FpdtError(`${what}: expected name=value with commas between, found ${JSON.stringify(item.trim())}`, {
      code: 'invalid-value',
      hint: `write options such as ${example}`,
    });
  });
}
