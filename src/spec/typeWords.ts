/** What errors call the types that JSON has. */
export const TYPE_WORDS = {
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  string: 'a text',
  list: 'a list',
  object: 'an object',
  null: 'null',
  any: 'any value',
} as const;
