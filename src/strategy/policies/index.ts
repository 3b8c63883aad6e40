/** Policies by name; a new one is a file beside this one and a line here. */
import type { PolicyName } from '../../spec/strategy.js';
import { alst } from './alst.js';
import { auto } from './auto.js';
import { fpdt } from './fpdt.js';
import type { Policy } from './policy.js';
import { ulysses } from './ulysses.js';
import { ulyssesOffload } from './ulyssesOffload.js';

export type { CandidateInput, LayerPlacement, PoolNames } from './policy.js';

export const POLICIES: Readonly<Record<PolicyName, Policy>> = {
  ulysses,
  'ulysses-offload': ulyssesOffload,
  alst,
  fpdt,
  auto,
};
