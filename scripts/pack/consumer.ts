/** TypeScript of a user's: type-checked as tsc resolves packages there, then run. */
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packFailed, type Place, ROOT, run, tool } from './place.js';

/** `moduleResolution`, with the `module` that goes with it. */
const RESOLUTIONS = { node16: 'node16', nodenext: 'nodenext', bundler: 'esnext' } as const;

const SOURCE = `
import { type ExecutionPlan, FpdtError, launchRun, planRun, planSummary, type PlanInput } from 'fpdt';

const input: PlanInput = { model: process.argv[2] ?? '', cluster: { gpus: 2, gpu: 'cpu' }, run: { seqLen: 64, numChunks: 2 } };
const plan: ExecutionPlan = await planRun(input);
const zeroStage: 0 | 1 | 2 | 3 = plan.run.zeroStage;
const launch: (plan: ExecutionPlan, options: { data: string }) => Promise<unknown> = launchRun;
// @ts-expect-error: a length is a number or text
const wrong: PlanInput = { ...input, run: { seqLen: true } };
const refused: unknown = await planRun(wrong).catch((error: unknown) => error);
if (!(refused instanceof FpdtError) || refused.hint === '') throw new Error('a wrong length was not refused');
if (typeof launch !== 'function' || planSummary(plan) === '') throw new Error('something of the API is missing');
console.log(JSON.stringify({ zeroStage, digest: plan.digest }));
`;

/** Returns the digest of the plan that the program made. */
export async function checkConsumer(place: Place, model: string): Promise<string> {
  writeFileSync(join(place.folder, 'consumer.ts'), SOURCE);
  linkTypes(place.folder);
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  for (const [resolution, module] of Object.entries(RESOLUTIONS)) {
    const config = { ...OPTIONS, module, moduleResolution: resolution, outDir: `built-${resolution}` };
    writeFileSync(join(place.folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: config, files: ['consumer.ts'] }));
    await tool(process.execPath, [tsc, '-p', 'tsconfig.json'], place.folder);
  }
  const { exitCode, stdout, stderr } = await run(place, [join(place.folder, 'built-nodenext', 'consumer.js'), model]);
  const said = exitCode === 0 ? (JSON.parse(stdout) as { readonly zeroStage: number; readonly digest: string }) : undefined;
  if (said?.zeroStage === 3) return said.digest;
  throw packFailed(`the consumer's program ended with ${exitCode}`, `${stdout}\n${stderr}`);
}

/** Libraries are checked too, as a user may do. */
const OPTIONS = { target: 'es2022', lib: ['es2023'], types: ['node'], strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true };

/** What a user needs beside: @types/node, that of this checkout. */
function linkTypes(folder: string): void {
  const types = join(folder, 'node_modules', '@types');
  mkdirSync(types, { recursive: true });
  if (!existsSync(join(types, 'node'))) symlinkSync(join(ROOT, 'node_modules', '@types', 'node'), join(types, 'node'));
}
