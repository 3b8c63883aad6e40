/**
 * `find`, which remembers for each key the input of its last call and what it found: a search asks for the same again and again, and
 * then for the next. `isSame`: whether inputs of one key have one result.
 */
export function lastFor<Key extends object, Input, Found>(
  keyOf: (input: Input) => Key,
  isSame: (one: Input, other: Input) => boolean,
  find: (input: Input) => Found,
): (input: Input) => Found {
  const known = new WeakMap<Key, { readonly input: Input; readonly found: Found }>();
  return (input) => {
    const key = keyOf(input);
    const last = known.get(key);
    if (last !== undefined && isSame(last.input, input)) return last.found;
    const found = find(input);
    known.set(key, { input, found });
    return found;
  };
}
