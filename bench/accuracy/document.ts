/** docs/accuracy.md as a text, of a recorded result alone. */
import type { Accuracy } from './judge.js';
import { driftText, runText, shapeTitle, verdictText } from './text.js';

/** What bench/record.ts writes. */
export interface Recorded {
  readonly hardware: string;
  readonly date: string;
  readonly commit: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly command: string;
  readonly seconds: number;
  readonly result: Accuracy;
}

export function accuracyDocument({ hardware, date, commit, versions, command, seconds, result }: Recorded): string {
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `# Planned against measured

Written by \`npm run docs:accuracy\` from bench/results/accuracy.json; do not edit.

- Hardware: ${hardware}
- Date: ${date}; commit: ${commit}
- Versions: ${names.join(', ')}
- Command: \`${command}\`, ${seconds} s

${verdictText(result)}.

With each policy a shape is calibrated, planned from what was measured, and run; in the end it is calibrated again. A calibration runs two small
plans of the model's own layers (2 layers on 2 chunks, 1 layer on 3) and takes the rates of kernels, links and ZeRO from them; no number
of the runs below goes into their predictions. Times are those of one step of one rank, the median over steps; an error is planned over
measured, less 1. GPUs are calibrated by the same code through streams and events, which has not run on one yet.

${result.shapes.map((shape) => `## ${capitalized(shapeTitle(shape))}\n\n${capitalized(driftText(shape))}.\n\n${shape.runs.map((run) => `\`\`\`\n${runText(run)}\n\`\`\``).join('\n\n')}`).join('\n\n')}
`;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
