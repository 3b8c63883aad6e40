/** What may be chosen about a run's data by name. */

/** Of a `.bin` without index; the first is the default. */
export const DATA_DTYPES = ['int32', 'uint16'] as const;

/** What becomes of documents longer than a sequence; the first is the default. */
export const LONG_DOCUMENTS = ['refuse', 'split', 'truncate'] as const;
