/** The golden data of a bundle: what the reference model says to fixed prompts. See runtime/FORMAT.md, "golden/". */

import type { Bundle } from "./bundle";
import { bundleError } from "./errors";
import { dictionary, integer, list, object, orNull, record, text } from "./schema";
import { parseJson } from "./strict-json";

export type SetName = "reference" | "weights";
export const SET_NAMES: SetName[] = ["reference", "weights"];

export interface GoldenPrompt {
  text: string | null;
  ids: number[];
  continuation: number[];
  /** Of a model that sees, which this app does not run. */
  picture?: string | null;
}

/** Rows describe the logits after each id of the prompts' sequences, prompts one after the other. */
export interface GoldenSet {
  /** [positions, top], falling. */
  topIds: Int32Array;
  topLogits: Float32Array;
  /** [positions], over the ids that are not among the top; -Infinity where there are none. */
  restLogsumexp: Float32Array;
  /** [prompts, steps]: the set's own greedy answers, their second choices, and by how much the first was preferred. */
  greedyIds: Int32Array;
  greedyRunnerUp: Int32Array;
  greedyGap: Float32Array;
}

export interface Golden {
  vocabSize: number;
  top: number;
  prompts: GoldenPrompt[];
  sets: Map<SetName, GoldenSet>;
}

const TOP = 32;
const SCHEMA_VERSION = 1;
const ARRAYS = {
  top_ids: "i32",
  top_logits: "f32",
  logsumexp: "f32",
  rest_logsumexp: "f32",
  greedy_ids: "i32",
  greedy_runner_up: "i32",
  greedy_gap: "f32",
} as const;
type ArrayName = keyof typeof ARRAYS;

interface ArrayFile {
  file: string;
  shape: number[];
}

const structure = record({
  schema_version: integer,
  vocab_size: integer,
  prompts: list(
    record<GoldenPrompt>(
      { text: orNull(text), ids: list(integer), continuation: list(integer), picture: orNull(text) },
      ["picture"],
    ),
  ),
  sets: dictionary(dictionary(record<ArrayFile>({ file: text, shape: list(integer) }))),
});
type Structure = ReturnType<typeof structure>;

/** The ids whose logits are recorded: the prompt, then its continuation without the last id. */
export function sequenceOf(prompt: GoldenPrompt): number[] {
  return [...prompt.ids, ...prompt.continuation.slice(0, -1)];
}

/** Reads `golden/`. Throws a BundleError: a file is missing, of the wrong size, or does not fit the others. */
export async function readGolden(bundle: Bundle): Promise<Golden> {
  if (!bundle.has("golden/golden.json")) {
    throw bundleError("the bundle has no golden data", { wanted: "golden/golden.json", hint: "export the bundle again" });
  }
  const value = parseJson(await bundle.read("golden/golden.json"), "golden.json");
  const version = object(value, "golden.json").schema_version ?? null;
  if (version !== SCHEMA_VERSION) {
    throw bundleError("golden.json is of an unknown schema", { got: version, wanted: SCHEMA_VERSION });
  }
  const read = structure(value, "golden.json");
  checkPrompts(read, bundle.manifest.tokens.vocab_size);
  const top = Math.min(TOP, read.vocab_size);
  const sets = new Map<SetName, GoldenSet>();
  for (const name of SET_NAMES) {
    const files = read.sets.get(name);
    if (files) sets.set(name, await readSet(bundle, read, name, files, top));
  }
  return { vocabSize: read.vocab_size, top, prompts: read.prompts, sets };
}

function checkPrompts({ prompts, sets, vocab_size }: Structure, vocabulary: number): void {
  if (vocab_size !== vocabulary) {
    throw bundleError("golden data of another vocabulary", { got: vocab_size, wanted: vocabulary });
  }
  const names = [...sets.keys()];
  if (!prompts.length || !sets.has("reference") || names.some((name) => !SET_NAMES.includes(name as SetName))) {
    throw bundleError("golden.json lacks the reference or has unknown sets", { got: names, wanted: SET_NAMES });
  }
  for (const { ids, continuation } of prompts) {
    const all = [...ids, ...continuation];
    if (!ids.length || !continuation.length || all.some((id) => id < 0 || id >= vocab_size)) {
      throw bundleError("a golden prompt is empty or outside the vocabulary", { wanted: `0..${vocab_size - 1}` });
    }
  }
  if (new Set(prompts.map((prompt) => prompt.continuation.length)).size !== 1) {
    throw bundleError("golden continuations differ in length");
  }
}

async function readSet(
  bundle: Bundle,
  { prompts, vocab_size }: Structure,
  name: SetName,
  files: Map<string, ArrayFile>,
  top: number,
): Promise<GoldenSet> {
  if (files.size !== Object.keys(ARRAYS).length || Object.keys(ARRAYS).some((key) => !files.has(key))) {
    throw bundleError(`the golden set '${name}' is incomplete`, { got: [...files.keys()], wanted: Object.keys(ARRAYS) });
  }
  const rows = prompts.reduce((sum, prompt) => sum + sequenceOf(prompt).length, 0);
  const answers = [prompts.length, prompts[0]!.continuation.length];
  const array = (key: ArrayName, shape: number[]) => readArray(bundle, name, key, files.get(key)!, shape);
  const ids = async (key: ArrayName, shape: number[]) => within(asInt32(await array(key, shape)), vocab_size, key);
  const finite = async (key: ArrayName, shape: number[]) => allFinite(asFloat32(await array(key, shape)), key);
  await finite("logsumexp", [rows]);
  return {
    topIds: await ids("top_ids", [rows, top]),
    topLogits: await finite("top_logits", [rows, top]),
    restLogsumexp: asFloat32(await array("rest_logsumexp", [rows])),
    greedyIds: await ids("greedy_ids", answers),
    greedyRunnerUp: await ids("greedy_runner_up", answers),
    greedyGap: await finite("greedy_gap", answers),
  };
}

async function readArray(
  bundle: Bundle,
  set: SetName,
  key: ArrayName,
  { file, shape }: ArrayFile,
  wanted: number[],
): Promise<DataView> {
  const expected = `${set}.${key}.${ARRAYS[key]}`;
  if (file !== expected || shape.join() !== wanted.join()) {
    throw bundleError("golden.json names an unexpected array", { got: { file, shape }, wanted: [expected, wanted] });
  }
  const bytes = await bundle.read(`golden/${file}`);
  const size = 4 * wanted.reduce((product, length) => product * length, 1);
  if (bytes.length !== size) {
    throw bundleError(`golden/${file} is of the wrong size`, { got: bytes.length, wanted: size });
  }
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function asInt32(view: DataView): Int32Array {
  return Int32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
}

function asFloat32(view: DataView): Float32Array {
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function within(ids: Int32Array, size: number, key: string): Int32Array {
  if (ids.some((id) => id < 0 || id >= size)) {
    throw bundleError(`golden ${key} is outside the vocabulary`, { wanted: `0..${size - 1}` });
  }
  return ids;
}

function allFinite(values: Float32Array, key: string): Float32Array {
  if (!values.every(Number.isFinite)) {
    throw bundleError(`golden ${key} holds NaN or infinity`, { hint: "export the bundle again" });
  }
  return values;
}
