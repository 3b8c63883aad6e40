/** Released programs by their policies. */
import type { PlanOnlyPolicy } from '../../spec/releasedPrograms.js';
import { alst } from './alst.js';
import { fpdt } from './fpdt.js';
import type { ReleasedProgram } from './program.js';
import { upipe } from './upipe.js';

export const PROGRAMS: Readonly<Record<PlanOnlyPolicy, ReleasedProgram>> = { 'fpdt-released': fpdt, 'alst-released': alst, upipe };
