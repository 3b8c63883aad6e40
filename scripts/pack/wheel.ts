/** The worker as a wheel, for launchers that start Python by themselves. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packFailed, type Place, ROOT, tool } from './place.js';

/** Builds a wheel of the packed worker, installs it apart and asks it for its version. Returns the wheel's path. */
export async function checkWheel({ folder, python }: Place & { readonly python: string }): Promise<string> {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { readonly version: string };
  const wheels = join(folder, 'wheels');
  const source = join(folder, 'node_modules', 'fpdt', 'python');
  const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input', '-q'];
  await tool(python, [...pip, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', wheels, source], folder);
  const name = `fpdt-${version}-py3-none-any.whl`;
  if (!readdirSync(wheels).includes(name)) throw packFailed(`expected the wheel ${name}`, readdirSync(wheels).join('\n'));
  const site = join(folder, 'site');
  mkdirSync(site);
  await tool(python, [...pip, 'install', '--no-deps', '--target', site, join(wheels, name)], folder);
  const ask = `import sys; sys.path.insert(0, ${JSON.stringify(site)}); import fpdt.version, fpdt.worker; print(fpdt.version.VERSION, fpdt.__file__)`;
  const { stdout } = await tool(python, ['-P', '-c', ask], folder);
  if (stdout.trim() === `${version} ${join(site, 'fpdt', '__init__.py')}`) return join(wheels, name);
  throw packFailed(`expected fpdt ${version} in ${site}`, stdout);
}
