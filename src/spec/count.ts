/** How many there are of something that is there: 1 or more. */
import * as z from 'zod';

export const count = z.int().min(1);
