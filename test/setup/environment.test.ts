/** Setup with programs that only look like Python and uv: what is asked of them, and what is left when one fails. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { resolvePython } from '../../src/bridge/python.js';
import { findPython } from '../../src/setup/basePython.js';
import { hintFor } from '../../src/setup/command.js';
import { makeEnvironment, type SetupOptions } from '../../src/setup/makeEnvironment.js';
import { pinsOf, readPins, RUN_PACKAGES, torchPin } from '../../src/setup/pins.js';
import { environmentFolder } from '../../src/setup/places.js';
import { setUp } from '../../src/setup/setup.js';

let folder: string;
let said: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-environment-'));
  said = [];
  vi.stubEnv('XDG_DATA_HOME', join(folder, 'data'));
  vi.stubEnv('FPDT_PYTHON', '');
  vi.stubEnv('PATH', [join(folder, 'programs'), '/usr/bin', '/bin'].join(delimiter));
  program('nvidia-smi', 'exit 9');
  program('python3', PYTHON);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** Answers as Python 3.11 does; an environment that it makes has it as its Python. What pip is asked is in `calls`; `fail` names what fails. */
const PYTHON = `
here="$(dirname "$0")"; root="$FPDT_TEST_FOLDER"
case "$*" in
  *importErrors*) echo '{"python": "3.11.4", "executable": "x", "packages": {"torch": "1"}, "importErrors": {}, "gpu": null, "torchCuda": null}';;
  *version_info*) echo "\${FPDT_TEST_VERSION:-3.11}";;
  *python_version*) echo 3.11.4;;
  *"import venv"*) exit 0;;
  *"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo x > "$3/pyvenv.cfg";;
  *'version("torch")'*) cat "$here/torch" 2>/dev/null || exit 1;;
  *"-m pip --version"*) [ -f "$here/../pyvenv.cfg" ] || exit 1;;
  *"-m pip install"*)
    echo "$*" >> "$root/calls"
    if [ -f "$root/fail" ] && echo "$*" | grep -qe "$(cat "$root/fail")"; then cat "$root/message"; exit 1; fi
    case "$*" in *torch==*) echo "$*" | sed 's/.*torch==\\([^ ]*\\).*/\\1/' > "$here/torch";; esac;;
  *) exit 3;;
esac`;

function program(name: string, body: string): string {
  const path = join(folder, 'programs', name);
  mkdirSync(join(folder, 'programs'), { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  vi.stubEnv('FPDT_TEST_FOLDER', folder);
  return path;
}

const into = (): string => join(folder, 'made');
const make = (options: SetupOptions = {}) => makeEnvironment({ into: into(), ...options }, (line) => void said.push(line));
const calls = (): readonly string[] =>
  existsSync(join(folder, 'calls')) ? readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n') : [];

/** From now on what pip is asked with `pattern` in it fails with `message`. */
function failOn(pattern: string, message: string): void {
  writeFileSync(join(folder, 'fail'), pattern);
  writeFileSync(join(folder, 'message'), message);
}

describe('fpdt setup', () => {
  it('installs torch for a CPU and the pinned rest, is found by runs, and does nothing the second time', () => {
    expect(make()).toEqual({ folder: into(), python: join(into(), 'bin', 'python'), torch: `${torchPin()}+cpu`, wasThere: false });
    expect(calls().map((call) => / (torch==\S+|setuptools|--no-build-isolation)/.exec(call)?.[1])).toEqual([
      `torch==${torchPin()}+cpu`,
      'setuptools',
      '--no-build-isolation',
    ]);
    expect(make()).toMatchObject({ wasThere: true });
    expect(calls()).toHaveLength(3);
    expect(JSON.parse(readFileSync(join(folder, 'data', 'fpdt', version(), 'environment.json'), 'utf8'))).toEqual({
      kind: 'pythonEnvironment',
      folder: into(),
    });
  });

  it('leaves an environment whole where the Python that is to replace its own is none', () => {
    make();
    expect(() => make({ python: join(folder, 'none') })).toThrow(expect.objectContaining({ code: 'python-not-found' }));
    expect(make()).toMatchObject({ wasThere: true });
  });

  it('takes the build for a GPU where there is one or it is asked for, and the default one where an index has no other', () => {
    program('nvidia-smi', 'echo "GPU 0: made up"');
    expect(make().torch).toBe(torchPin());
    rmSync(into(), { recursive: true });
    program('nvidia-smi', 'exit 9');
    failOn('+cpu', 'ERROR: No matching distribution found for torch');
    expect(make().torch).toBe(torchPin());
    expect(said.join('\n')).toContain('PIP_EXTRA_INDEX_URL');
    rmSync(into(), { recursive: true });
    expect(() => make({ torch: 'cpu' })).toThrow(
      expect.objectContaining({ code: 'setup-failed', hint: expect.stringContaining('PIP_EXTRA_INDEX_URL') as string }),
    );
  });

  it.each([
    ['no-build-isolation', 'OSError: [Errno 28] No space left on device', /the disk is full.*--into FOLDER/],
    ['torch==', 'NewConnectionError: Temporary failure in name resolution', /could not be reached: check network and proxy/],
    ['setuptools', 'something else', /mend what the lines above name/],
  ])('that fails at %s leaves nothing that looks done, says what to do, and goes on when it starts again', (pattern, message, hint) => {
    failOn(pattern, message);
    expect(() => make()).toThrow(expect.objectContaining({ code: 'setup-failed', hint: expect.stringMatching(hint) as string }));
    expect(existsSync(join(into(), '.fpdt-stamp'))).toBe(false);
    expect(existsSync(`${into()}.lock`)).toBe(false);
    const before = calls().length;
    rmSync(join(folder, 'fail'));
    expect(make()).toMatchObject({ wasThere: false });
    expect(said.filter((line) => line.startsWith('making a Python environment'))).toHaveLength(1);
    expect(calls().length).toBeGreaterThan(before);
  });

  it('installs requirements of the user too, and anew when they change', () => {
    const also = join(folder, 'mine.txt');
    writeFileSync(also, 'wandb==1.0\n');
    make({ also });
    expect(calls().at(-1)).toContain(`-r ${also}`);
    writeFileSync(also, 'wandb==2.0\n');
    expect(make({ also })).toMatchObject({ wasThere: false });
    expect(() => make({ also: join(folder, 'none') })).toThrow(expect.objectContaining({ code: 'file-not-found' }));
  });

  it('touches no folder that it did not make', () => {
    mkdirSync(into());
    writeFileSync(join(into(), 'mine'), '');
    expect(() => make()).toThrow(/holds something that setup did not make/);
    writeFileSync(join(into(), 'pyvenv.cfg'), '');
    expect(() => make()).toThrow(
      expect.objectContaining({ hint: expect.stringContaining(`FPDT_PYTHON='${into()}/bin/python'`) as string }),
    );
    const link = join(folder, 'link');
    symlinkSync(into(), link);
    expect(() => make({ into: link })).toThrow(/is a link/);
    expect(() => make({ into: join(into(), 'mine') })).toThrow(/is no folder/);
    expect(calls()).toEqual([]);
  });

  it('keeps two of one folder apart, and takes over from a dead one', () => {
    writeFileSync(`${into()}.lock`, String(process.pid));
    expect(() => make()).toThrow(expect.objectContaining({ code: 'setup-running' }));
    writeFileSync(`${into()}.lock`, String(2 ** 22 + 1));
    expect(make()).toMatchObject({ wasThere: false });
  });

  it('uses uv where it is told to, and says where to get it', () => {
    expect(() => make({ uv: true })).toThrow(
      expect.objectContaining({ code: 'uv-not-found', hint: expect.stringContaining('pip install uv') as string }),
    );
    program(
      'uv',
      `case "$1 $2" in
      "--version ") echo "uv 1.0";;
      "venv "*) for last; do :; done; mkdir -p "$last/bin"; cp "$FPDT_TEST_FOLDER/programs/python3" "$last/bin/python"; echo x > "$last/pyvenv.cfg";;
      "pip install") echo "$*" >> "$FPDT_TEST_FOLDER/calls"; case "$*" in *torch==*) echo 2.13.0+cpu > "$FPDT_TEST_FOLDER/made/bin/torch";; esac;;
    esac`,
    );
    expect(make({ uv: true })).toMatchObject({ torch: '2.13.0+cpu' });
    expect(calls().every((call) => call.startsWith('pip install'))).toBe(true);
  });
});

describe('a Python to make it with', () => {
  it('is the first that fits; none, and one that is too old, are told with what to do', () => {
    expect(findPython(undefined, ['no-such-python', 'python3'])).toBe('python3');
    expect(() => findPython(undefined, ['no-such-python'])).toThrow(
      expect.objectContaining({ code: 'python-not-found', hint: expect.stringMatching(/apt-get install.*npx fpdt setup --uv/) as string }),
    );
    vi.stubEnv('FPDT_TEST_VERSION', '3.9');
    expect(() => findPython(undefined, ['python3'])).toThrow(/3\.11 to 3\.13; found: python3 is 3\.9/);
    expect(() => findPython('/bin/false')).toThrow(/--python \/bin\/false does not run/);
    expect(() => findPython('/bin/true')).toThrow(/--python \/bin\/true does not run/);
  });
});

describe('an environment of the user, in FPDT_PYTHON', () => {
  it('is looked at, and nothing is made', () => {
    const own = program(
      'own',
      `echo '{"python": "3.11.4", "executable": "x", "packages": {"torch": "9.9", "deepspeed": null}, "importErrors": {"torch": "OSError: no"}}'`,
    );
    expect(() => setUp({}, () => undefined, { FPDT_PYTHON: own })).toThrow(
      expect.objectContaining({
        code: 'python-packages-missing',
        message: expect.stringContaining('deepspeed is not installed; torch: OSError: no') as string,
        hint: expect.stringContaining(`'${own}' -m pip install 'deepspeed==`) as string,
      }),
    );
    expect(() => setUp({}, () => undefined, { FPDT_PYTHON: '/nowhere/python' })).toThrow(/\/nowhere\/python does not run/);
  });
});

describe('runs', () => {
  it('take no environment that is not whole', () => {
    expect(environmentFolder({ XDG_DATA_HOME: join(folder, 'none') })).toMatch(/\.venv$/);
    expect(resolvePython(undefined, { FPDT_PYTHON: '/bin/sh' })).toBe('/bin/sh');
  });
});

describe('pins', () => {
  it('are those of the worker, each package that a run imports among them', () => {
    const pins = readPins();
    expect([...Object.keys(RUN_PACKAGES)].filter((name) => !pins.has(name))).toEqual([]);
    const project = readFileSync('python/pyproject.toml', 'utf8');
    for (const [, name = '', pin = ''] of project.matchAll(/^ {2}"([\w-]+)[=>]=([\d.]+)",$/gm))
      expect([name, pins.get(name)]).toEqual([name, pin]);
    expect(pinsOf('python/requirements-test.txt').has('pytest')).toBe(true);
  });

  it.each([
    ['ERROR: No matching distribution found for torch==2.13.0', /no build of that version/],
    ['error: No space left on device (os error 28)', /disk is full/],
    ['Permission denied', /not writable/],
    ['spawnSync uv ENOENT', /that program is not there/],
  ])('a failure that says "%s" has a hint', (output, advice) => {
    expect(hintFor(output)).toMatch(advice);
  });
});

function version(): string {
  return (JSON.parse(readFileSync('package.json', 'utf8')) as { readonly version: string }).version;
}
