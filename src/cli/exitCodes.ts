/** Exit codes of the command line beside 0, done, and 1, failed. */
export const USAGE = 2;
/** A plan was made, and does not keep to what --require says. */
export const UNMET = 3;
/** Stopped with a checkpoint as asked; the same command with --resume auto goes on (EX_TEMPFAIL of sysexits.h: try again later). */
export const STOPPED = 75;
export const INTERRUPTED = 130;
