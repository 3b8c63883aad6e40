/** The turns of a micro-step: their order, what each hands over, and the weights that its calls use. */
import { trainsEmbedding } from '../catalog/parameters.js';
import type { Call, Turn } from '../schedule/program.js';
import { turnName } from '../schedule/program.js';
import type { PlacedCall } from './calls.js';
import type { Context } from './context.js';
import { emittedRegion, gradientViews, VARIANTS } from './regions.js';
import { atOp } from './text.js';

/** Kinds that use the weights of the call's layer. */
const LAYER_KINDS: ReadonlySet<string> = new Set(['pre', 'preQ', 'preKv', 'post', 'postKeep', 'postBwd', 'postBwdKept', 'preBwd']);

/** The only turn in which a kind may run, in one call: its weights are that module's, and autograd takes their gradients there. */
const TURN_OF_KIND: Readonly<Record<string, string>> = {
  embed: 'embed forward',
  loss: 'head forward',
  rescale: 'head backward',
  embedBwd: 'embed backward',
  postBwd: 'layer backward',
  attnBwd: 'layer backward',
  preBwd: 'layer backward',
};
/** The same of a program that evaluates; what forms gradients runs in none of its turns. */
const EVALUATION_TURN_OF_KIND: typeof TURN_OF_KIND = { embed: 'embed forward', lossOnly: 'head forward' };
/** Kinds of the one program that the other must not have. */
const FOREIGN_KINDS = {
  train: ['lossOnly'],
  evaluate: [...Object.keys(TURN_OF_KIND).filter((kind) => !Object.hasOwn(EVALUATION_TURN_OF_KIND, kind)), 'postKeep', 'emitGrads'],
} as const;

export function checkTurns(calls: readonly PlacedCall[], context: Context): void {
  checkOrder(context);
  const byTurn = new Map<Turn, PlacedCall[]>(context.input.programs.train.turns.map((turn) => [turn, []]));
  for (const placed of calls) if (placed.call.owner === 'plan') byTurn.get(placed.turn)?.push(placed);
  for (const [turn, own] of byTurn) {
    checkEmission(turn, own, context);
    checkWeights(turn, own, context);
    if (turn.module === 'layer' && turn.direction === 'backward') checkLayerRegion(turn, own, context);
    checkGathers(turn, own, context);
  }
}

/** Every module forward; in training then every module backward, the other way round, and the end of the step. */
function checkOrder({ input: { numLayers, programs, evaluates }, violations }: Context): void {
  const layers = Array.from({ length: numLayers }, (_, layer) => layer);
  const forward = ['embed forward', ...layers.map((layer) => `layer ${layer} forward`), 'head forward'];
  const backward = ['head backward', ...layers.toReversed().map((layer) => `layer ${layer} backward`), 'embed backward'];
  const expected = evaluates === true ? forward : [...forward, ...backward, 'end'];
  const found = programs.train.turns.map((turn) => (turn.module === 'end' ? 'end' : turnName(turn)));
  for (let i = 0; i < Math.max(expected.length, found.length); i++) {
    if (expected[i] === found[i]) continue;
    const problem = `turn ${i} is ${found[i] ?? 'missing'}, expected ${expected[i] ?? 'none'}`;
    violations.add({ section: 'program', text: found[i] ?? '', problem });
    return;
  }
}

/** Autograd takes the gradients of a module's weights once, in its backward turn. */
function checkEmission(turn: Turn, calls: readonly PlacedCall[], context: Context): void {
  const { violations, input } = context;
  const region = turn.direction === 'backward' ? emittedRegion(turn, input) : undefined;
  const emissions = calls.flatMap((placed) => placed.flat.emissions.map((op) => ({ placed, op, rows: op.reads[0]?.rows })));
  const expected = region === undefined ? 0 : 1;
  if (emissions.length !== expected) {
    const problem = `hands over gradients ${emissions.length} times, expected ${expected}`;
    violations.add({ section: 'program', text: turnName(turn), problem });
  }
  for (const { placed, op, rows } of emissions) {
    if (region !== undefined && (rows?.start !== region.start || rows.end !== region.end)) {
      const handed = `hands over elements ${rows?.start}..${rows?.end}`;
      const problem = `${handed}, and the ${turn.module}'s weights are ${region.start}..${region.end}`;
      violations.add(atOp(placed.flat, op.id, problem, context, placed.name));
    }
    if (turn.module === 'layer' && placed.call.layer !== turn.layer) {
      const problem = `hands over gradients of ${layerText(placed.call)} in the turn of layer ${turn.layer}`;
      violations.add(atOp(placed.flat, op.id, problem, context, placed.name));
    }
  }
}

/** Each op of a layer finds its weights' gradients at their places in that layer's region. */
function checkLayerRegion(turn: Turn, calls: readonly PlacedCall[], context: Context): void {
  const region = emittedRegion(turn, context.input);
  for (const placed of calls) {
    for (const op of placed.flat.layerAdditions) {
      const rows = gradientViews(op)[0]?.rows;
      if (region === undefined || rows === undefined || (rows.start === region.start && rows.end === region.end)) continue;
      const problem = `adds gradients to elements ${rows.start}..${rows.end} of its region, expected ${region.start}..${region.end}`;
      context.violations.add(atOp(placed.flat, op.id, problem, context, placed.name));
    }
  }
}

/** Ops run in the turn of the module whose weights they use; gradients form in the turn of their own layer. */
function checkWeights(turn: Turn, calls: readonly PlacedCall[], context: Context): void {
  const name = `${turn.module} ${turn.direction}`;
  const isEvaluation = context.input.evaluates === true;
  const turnOfKind = isEvaluation ? EVALUATION_TURN_OF_KIND : TURN_OF_KIND;
  const foreign: readonly string[] = FOREIGN_KINDS[isEvaluation ? 'evaluate' : 'train'];
  for (const [kind, only] of Object.entries(turnOfKind)) {
    if (only !== name) continue;
    const count = calls.filter(({ flat }) => [...flat.firstOfKind.keys()].some((one) => (VARIANTS[one] ?? one) === kind)).length;
    const expected = kind === 'embedBwd' && !trainsEmbedding(context.input.parameters) ? 0 : 1;
    if (count === expected) continue;
    const problem = `has ${kind} in ${count} calls, expected ${expected === 1 ? 'one' : 'none'}`;
    context.violations.add({ section: 'program', text: turnName(turn), problem });
  }
  for (const { flat, call, name: callName } of calls) {
    for (const op of flat.firstOfKind.values()) {
      const report = (problem: string): void => context.violations.add(atOp(flat, op.id, problem, context, callName));
      const kind = VARIANTS[op.kind] ?? op.kind;
      const only = turnOfKind[kind];
      if (foreign.includes(kind)) report(`is of a kind that ${isEvaluation ? 'evaluation' : 'training'} has none of`);
      if (only !== undefined && only !== name) report(`runs in the turn ${turnName(turn)}, its kind in ${only} alone`);
      if (!LAYER_KINDS.has(op.kind)) continue;
      if (call.layer === undefined) report('uses weights of a layer, and its call names none');
      else if (kind.endsWith('Bwd') && call.layer !== turn.layer)
        report(`forms gradients of layer ${call.layer} in the turn ${turnName(turn)}`);
    }
  }
}

/** A call under another layer's weights than the turn's stands between gather and release of that layer. */
function checkGathers(turn: Turn, calls: readonly PlacedCall[], { violations }: Context): void {
  const gathered = new Map<number, PlacedCall>();
  for (const placed of calls) {
    const { call, flat, name } = placed;
    const kinds = flat.firstOfKind;
    const report = (problem: string): void => violations.add({ section: call.section, call: name, text: call.section, problem });
    if (kinds.has('gather') || kinds.has('release')) {
      if (call.layer === undefined) report('names no layer');
      else if (kinds.has('gather') === gathered.has(call.layer))
        report(
          kinds.has('gather')
            ? `gathers layer ${call.layer} a second time`
            : `releases layer ${call.layer}, which this turn has not gathered`,
        );
      if (call.layer === undefined) continue;
      if (kinds.has('gather')) gathered.set(call.layer, placed);
      else gathered.delete(call.layer);
    } else if (call.layer !== undefined && call.layer !== turn.layer && !gathered.has(call.layer) && usesWeights(placed)) {
      report(`uses weights of layer ${call.layer} in the turn ${turnName(turn)}, which has not gathered them`);
    }
  }
  for (const [layer, { call, name }] of gathered)
    violations.add({
      section: call.section,
      call: name,
      text: call.section,
      problem: `gathers layer ${layer}, which the turn never releases`,
    });
}

function usesWeights({ flat }: PlacedCall): boolean {
  return [...LAYER_KINDS].some((kind) => flat.firstOfKind.has(kind));
}

function layerText({ layer }: Call): string {
  return layer === undefined ? 'no layer' : `layer ${layer}`;
}
