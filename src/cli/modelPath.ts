/** Where a model is that the command line names: a file, a folder, or a name in the local Hugging Face cache. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { FpdtError } from '../spec/errors.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** As huggingface_hub names repositories: an owner and a name of letters, digits, dots, dashes and underscores. */
const REPOSITORY = /^[\w.-]+\/[\w.-]+$/;
const REVISION = 'main';

/**
 * The folder of `org/name` in the cache, or `text` itself where it is a path that exists or no such name. Nothing is downloaded.
 * Throws `model-not-cached` for a name that the cache does not have.
 */
export function modelFolder(text: string, environment: Environment = process.env): string {
  if (existsSync(text) || !REPOSITORY.test(text)) return text;
  const hub = hubFolder(environment);
  const repository = join(hub, `models--${text.replace('/', '--')}`);
  const revision = join(repository, 'refs', REVISION);
  const commit = existsSync(revision) ? readFileSync(revision, 'utf8').trim() : undefined;
  const snapshot = commit === undefined ? undefined : join(repository, 'snapshots', commit);
  if (snapshot !== undefined && existsSync(join(snapshot, 'config.json'))) return snapshot;
  throw new FpdtError(`there is no path '${text}', and no such model in the Hugging Face cache ${hub}`, {
    code: 'model-not-cached',
    hint: hintOf(text, hub),
    details: { model: text, cache: hub },
  });
}

/** HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME, as huggingface_hub/constants.py reads them. */
function hubFolder({ HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME }: Environment): string {
  return HF_HUB_CACHE ?? join(HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface'), 'hub');
}

function hintOf(text: string, hub: string): string {
  const download = `hf download ${text}`;
  const cached = existsSync(hub) ? readdirSync(hub).filter((name) => name.startsWith('models--')) : [];
  if (cached.length === 0) return `download it: ${download}`;
  const names = cached.map((name) => name.slice('models--'.length).replace('--', '/')).slice(0, 4);
  return `download it: ${download}; the cache has ${names.join(', ')}${cached.length > names.length ? ', ...' : ''}`;
}
