/**
 * `npm run bench:accuracy -- [--json] [--only N] [--steps 12] [--seconds 20] [--rounds 5]`: planned against measured times on this machine's CPU.
 * Six shapes, both policies; each shape is calibrated before, between and after its runs, and run again, up to `--rounds` times in all, while
 * the machine's speed changed meanwhile; a shape for which it always did is told and not judged. Fails when a target is missed.
 */
import { resolvePython } from '../src/bridge/python.js';
import { parseOptions, runScript, wholeNumber } from '../scripts/options.js';
import { accuracyOf, driftOf, MAX_DRIFT, shapeAccuracy, type ShapeAccuracy } from './accuracy/judge.js';
import { type Round, type RoundOptions, runRound } from './accuracy/round.js';
import { type Shape, SHAPES } from './accuracy/shapes.js';
import { shapeText, verdictText } from './accuracy/text.js';

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      only: { type: 'string' },
      steps: { type: 'string', default: '12' },
      seconds: { type: 'string', default: '20' },
      rounds: { type: 'string', default: '5' },
    },
  });
  const options = {
    python: resolvePython(),
    numSteps: wholeNumber('steps', values.steps, { least: 2 }),
    calibrationSeconds: wholeNumber('seconds', values.seconds),
  };
  const maxRounds = wholeNumber('rounds', values.rounds);
  const only = values.only === undefined ? undefined : wholeNumber('only', values.only, { most: SHAPES.length });
  const chosen = SHAPES.filter((_, i) => only === undefined || i === only - 1);
  const shapes: ShapeAccuracy[] = [];
  for (const shape of chosen) {
    const accuracy = shapeAccuracy(shape, await rounds(shape, options, maxRounds));
    process.stderr.write(`${shapeText(accuracy)}\n\n`);
    shapes.push(accuracy);
  }
  const accuracy = accuracyOf(shapes);
  process.stdout.write(values.json ? `${JSON.stringify(accuracy, null, 1)}\n` : `${verdictText(accuracy)}\n`);
  process.exitCode = accuracy.ok === false ? 1 : 0;
}

async function rounds(shape: Shape, options: RoundOptions, most: number): Promise<readonly Round[]> {
  const done: Round[] = [];
  while (done.length < most) {
    const round = await runRound(shape, options);
    done.push(round);
    if (driftOf(round) <= MAX_DRIFT) break;
    process.stderr.write(
      `${shape.name}: the machine's speed changed by a factor of ${round.speedFactor.toFixed(3)} in round ${done.length}\n`,
    );
  }
  return done;
}

await runScript(main);
