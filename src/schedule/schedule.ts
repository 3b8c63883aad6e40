/** Everything a worker runs, before and after addresses: what the verifier, the simulator and the encoder read. */
import type { Link, Pool } from '../spec/pools.js';
import type { Buffer } from './buffer.js';
import type { Attribute, Section } from './op.js';
import type { Program, Table } from './program.js';

export interface Schedule {
  readonly pools: readonly Pool[];
  readonly links: readonly Link[];
  /** Names of all streams, in the order that entry masks and columns count them; `compute` is the first. */
  readonly streams: readonly string[];
  readonly buffers: readonly Buffer[];
  readonly attributes: readonly Attribute[];
  readonly tables: readonly Table[];
  readonly sections: readonly Section[];
  readonly programs: Programs;
}

/** Over the same arenas. Between two runs of a program nothing in them lives on. */
export interface Programs {
  readonly train: Program;
  /** Forward of one sequence for each replica, which keeps nothing for a backward: see evaluation.ts. */
  readonly evaluate?: Program;
}

/** Sections by name. Throws a RangeError for a name that is not there. */
export function sectionNamed(sections: readonly Section[], name: string): Section {
  const found = sections.find((section) => section.name === name);
  if (found === undefined) throw new RangeError(`no section is called ${name}; there are ${sections.map((one) => one.name).join(', ')}`);
  return found;
}
