/** A core of `npm run test:tsan`: one plan replayed on the native copy engine under ThreadSanitizer, whole, and with a wait left out. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildReplay, replayText, runReplay } from '../../scripts/tsan/replay.js';
import { FPDT_CASE } from '../../scripts/parity/cases.js';
import { planCase } from '../../scripts/parity/setting.js';
import { writePlanFile } from '../../src/index.js';

const HOUR = 3_600_000;
let folder: string;
let program: string;
let plan: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-copies-'));
  plan = join(folder, 'plan.json');
  await writePlanFile(await planCase(FPDT_CASE), plan);
  program = await buildReplay(folder);
}, HOUR);
afterAll(() => rmSync(folder, { recursive: true }));

describe('the copy engine under ThreadSanitizer', () => {
  it.each(['exact', 'threads'] as const)(
    'has no race on a plan of two ranks, device %s',
    async (device) => {
      const text = (await replayText(plan)) ?? '';
      const { numRaces, firstRace, copies, batches } = await runReplay(program, text, device, 1);
      expect({ numRaces, firstRace }).toEqual({ numRaces: 0, firstRace: undefined });
      expect(copies).toBeGreaterThan(1000);
      expect(batches).toBeLessThan(copies);
    },
    HOUR,
  );

  it(
    'shows a wait that is left out',
    async () => {
      const { numRaces, firstRace } = await runReplay(program, (await replayText(plan, 0)) ?? '', 'exact', 1);
      expect(numRaces).toBeGreaterThan(0);
      expect(firstRace).toContain('data race');
    },
    HOUR,
  );

  it(
    'refuses a plan that is cut short',
    async () => {
      const text = (await replayText(plan)) ?? '';
      await expect(runReplay(program, text.slice(0, text.length / 2), 'exact', 1)).rejects.toThrow('the plan ends too early');
      expect(await replayText(plan, 1_000_000)).toBeUndefined();
    },
    HOUR,
  );
});
