/** torch, in the build for this machine. */
import { statfsSync } from 'node:fs';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import { outputOf } from './command.js';
import { torchPin } from './pins.js';
import { installInto, type Steps, timed } from './steps.js';
import type { TorchChoice } from './torchBuilds.js';

type TorchBuild = Exclude<TorchChoice, 'auto'>;

export function buildFor(torch: TorchChoice = 'auto'): TorchBuild {
  if (torch !== 'auto') return torch;
  return (outputOf('nvidia-smi', ['-L']) ?? '').includes('GPU ') ? 'cuda' : 'cpu';
}

/** Version and build that an environment has. */
export function torchOf(python: string): string | undefined {
  return outputOf(python, ['-c', 'import importlib.metadata as m; print(m.version("torch"))']);
}

/** Of the environment and what is unpacked beside it while it is made. */
const NEEDED_BYTES = { cpu: 3 * 1024 ** 3, cuda: 12 * 1024 ** 3 } as const;

/** The CPU build where one is wanted and an index has it under its name; otherwise, unless it was asked for, the default one, which runs on a CPU too. */
export function installTorch(steps: Steps, build: TorchBuild, isCpuAsked: boolean): string {
  const { python, folder, say } = steps;
  const pin = torchPin();
  const there = torchOf(python);
  if (there?.split('+')[0] === pin && (build === 'cpu' || !there.endsWith('+cpu'))) return there;
  checkRoom(folder, build);
  const install = (name: string): void => installInto(steps, [name]);
  const isLinux = process.platform === 'linux';
  if (build === 'cuda' || !isLinux)
    timed(say, `installing torch ${pin}${isLinux ? ' for the GPU of this machine' : ''}`, () => install(`torch==${pin}`));
  else if (!timed(say, `installing torch ${pin}, CPU build`, () => tryInstall(() => install(`torch==${pin}+cpu`), isCpuAsked))) {
    say(
      '  the package index has no CPU build under that name: taking the default one, with several GB of CUDA libraries that are not needed here.',
    );
    say(
      "  To avoid them: stop, give pip PyTorch's index of CPU builds beside its own (PIP_EXTRA_INDEX_URL; UV_INDEX with --uv), and start again",
    );
    checkRoom(folder, 'cuda');
    timed(say, `installing torch ${pin}, default build`, () => install(`torch==${pin}`));
  }
  return torchOf(python) ?? pin;
}

/** False where no index has it; `isAsked`: that is an error then. */
function tryInstall(install: () => void, isAsked: boolean): boolean {
  try {
    install();
    return true;
  } catch (error) {
    const said = error instanceof FpdtError ? String(error.details?.['stderrTail']) : '';
    if (isAsked || !/No matching distribution|no version of|No solution found/i.test(said)) throw error;
    return false;
  }
}

function checkRoom(folder: string, build: TorchBuild): void {
  const { bavail, bsize } = statfsSync(folder);
  const needed = NEEDED_BYTES[build];
  if (bavail * bsize >= needed) return;
  throw new FpdtError(`${folder} has ${formatBytes(bavail * bsize)} of free disk, and about ${formatBytes(needed)} are needed`, {
    code: 'disk-full',
    hint: 'free some, or make it elsewhere: npx fpdt setup --into FOLDER',
  });
}
