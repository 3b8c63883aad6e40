/** Exit codes of the command line beside 0, done, and 1, failed. */
export const USAGE = 2;
/** A plan was made, and does not keep to what --require says. */
export const UNMET = 3;
export const INTERRUPTED = 130;
