/**
 * Times the native planner core against its TypeScript twin: `npx tsx native/bench.ts`, after `node native/build.mjs`. Prints one JSON
 * line per size with the machine and date; sizes are those of a plan (40 buffers) and of a search over many layouts.
 */
import { cpus } from 'node:os';
import { loadNativeAddon } from '../src/native.js';
import { mulberry32 } from '../src/plan/layout.js';
import { type PlaceInput, placeByConflicts } from '../src/plan/place.js';

const { addon, error } = loadNativeAddon();
if (addon === undefined) throw error ?? new Error('no addon: run `node native/build.mjs` first');

for (const count of [40, 400, 2000]) {
  const input = randomInput(count);
  const repeats = Math.ceil(20_000 / count);
  console.log(
    JSON.stringify({
      items: count,
      twinMicroseconds: microseconds(repeats, () => placeByConflicts(input)),
      nativeMicroseconds: microseconds(repeats, () => addon.placeByConflicts(input.sizes, input.conflicts, input.order, input.alignment)),
      cpu: cpus()[0]?.model,
      node: process.version,
      date: new Date().toISOString().slice(0, 10),
    }),
  );
}

/** Half of all pairs conflict, as in a layer's section. */
function randomInput(count: number): PlaceInput {
  const random = mulberry32(1);
  const conflicts = new Uint8Array(count * count);
  for (let a = 0; a < count; a++) {
    for (let b = 0; b < a; b++) {
      const conflict = Number(random() < 0.5);
      conflicts[a * count + b] = conflict;
      conflicts[b * count + a] = conflict;
    }
  }
  const sizes = Float64Array.from({ length: count }, () => Math.ceil(random() * 2 ** 30));
  return { sizes, conflicts, order: Int32Array.from(sizes.keys()), alignment: 512 };
}

/** Median of `repeats` runs after a warm-up. */
function microseconds(repeats: number, work: () => unknown): number {
  for (let i = 0; i < repeats; i++) work();
  const times = Array.from({ length: repeats }, () => {
    const start = process.hrtime.bigint();
    work();
    return Number(process.hrtime.bigint() - start) / 1000;
  });
  return Math.round(times.sort((a, b) => a - b)[Math.floor(repeats / 2)] ?? 0);
}
