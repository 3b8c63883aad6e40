/** What is wrong with a run's options that can be seen before Python is started. What is in files is for Python to say. */

import { existsSync, lstatSync, readdirSync, statSync } from 'node:fs';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { FpdtError } from '../spec/errors.js';
import { isFolder } from '../spec/jsonFile.js';
import type { LaunchOptions } from './launchOptions.js';

/** Throws FpdtError for the first that is found. */
export function checkLaunch(plan: ExecutionPlan, options: LaunchOptions): void {
  checkDiskFolder(plan, options);
  checkModelFolders(options);
  checkEvaluation(plan, options);
  // A worker of one's own takes paths in its own way.
  if (options.worker === undefined) checkPaths(options);
}

/** Data that is not there, and a file in the place of a folder that the run is to write into. */
function checkPaths(options: LaunchOptions): void {
  for (const path of [options.data, ...(options.evalData === undefined ? [] : [options.evalData])]) checkData(path);
  for (const [name, path] of Object.entries(foldersOf(options))) {
    if (path === undefined || !existsSync(path) || isFolder(path)) continue;
    throw new FpdtError(`${name}: '${path}' is no folder`, { code: 'not-a-folder', hint: `give --${name} a folder`, details: { path } });
  }
}

function checkData(path: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    throw new FpdtError(`there is no data file ${path}`, {
      code: 'data-refused',
      hint: 'give the path of a file that docs/data.md knows',
      details: { path },
    });
  }
  if (found.isFile() || found.isDirectory()) return;
  throw new FpdtError(`${path} is no plain file`, {
    code: 'data-refused',
    hint: 'write what it gives into a file: every rank reads it, from several places',
    details: { path },
  });
}

function foldersOf(options: LaunchOptions): Readonly<Record<string, string | undefined>> {
  const { checkpoint, dumpGrads, traceFolder, diskFolder, dataCache, tokenizer } = options;
  return {
    checkpoint,
    'dump-grads': dumpGrads,
    'trace-folder': traceFolder,
    'disk-folder': diskFolder,
    'data-cache': dataCache,
    tokenizer,
  };
}

/** The other options of an evaluation say nothing without its data, and its data nothing without a program that evaluates. */
function checkEvaluation({ programs }: ExecutionPlan, { evalData, evalSequences, evalEvery }: LaunchOptions): void {
  if (evalData === undefined) {
    const given = evalEvery === undefined ? (evalSequences === undefined ? undefined : 'evalSequences') : 'evalEvery';
    if (given === undefined) return;
    throw new FpdtError(`${given} is given, but there is no data to evaluate`, {
      code: 'evaluation-data-missing',
      hint: 'give the held-out tokens with --eval-data',
    });
  }
  if (programs.evaluate !== undefined) return;
  throw new FpdtError('there is data to evaluate, but the plan has no program that evaluates', {
    code: 'plan-without-evaluation',
    hint: 'plan with --evaluate',
  });
}

/** The ranks would refuse it too, after half a minute of imports. */
function checkDiskFolder({ pools }: ExecutionPlan, { diskFolder }: LaunchOptions): void {
  const used = pools.find(({ kind, bytes }) => kind === 'file' && bytes > 0);
  if (used === undefined || diskFolder !== undefined) return;
  throw new FpdtError(`the plan keeps ${used.bytes} bytes a rank in the file pool ${used.name}, but there is no diskFolder`, {
    code: 'disk-folder-missing',
    hint: 'give --disk-folder, a folder on the disk that the plan is for',
    details: { pool: used.name, bytes: used.bytes },
  });
}

/** What is in them is for the ranks to say. */
function checkModelFolders({ weights, export: target }: LaunchOptions): void {
  if (weights !== undefined && !isFolder(weights)) {
    throw new FpdtError(`weights: there is no folder '${weights}'`, {
      code: 'weights-missing',
      hint: 'give a Hugging Face folder with config.json and safetensors',
    });
  }
  if (target !== undefined && lstatSync(target, { throwIfNoEntry: false })?.isSymbolicLink() === true) {
    throw new FpdtError(`export: '${target}' is a link`, { code: 'export-in-use', hint: 'give the folder that it leads to, or a new one' });
  }
  if (target !== undefined && existsSync(target) && (!isFolder(target) || readdirSync(target).length > 0)) {
    throw new FpdtError(`export: '${target}' is there and not empty`, { code: 'export-in-use', hint: 'give a new folder for the export' });
  }
}
