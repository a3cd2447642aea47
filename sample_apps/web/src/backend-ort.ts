/**
 * Runs model.onnx by onnxruntime-web's WebAssembly build. runtime/backends/onnx.py is its twin.
 *
 * There, past and present are one buffer of `context_length` ids that the graph appends to in place. onnxruntime-web
 * copies CPU tensors into its memory and out of it, so that the cache given here is only as long as it is filled, and
 * what comes out, longer by the new ids, is what goes in next.
 */

import type * as Ort from "onnxruntime-web";

import type { Backend } from "./core/backend";
import type { Bundle } from "./core/bundle";
import { formatError, reasonOf, usageError } from "./core/errors";
import type { ModelEntry, TensorSpec } from "./core/manifest";

export type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor" | "env">;

const BYTES_TO_LOAD = 1.6e9; // of a model's data: the 4 GB of wasm hold a copy, and what the session makes of it

export class OrtBackend implements Backend {
  position = 0;
  private cache: Record<string, Ort.Tensor> = {};
  private readonly past: TensorSpec[];
  private readonly vocabulary: number;

  private constructor(
    private readonly ort: OrtModule,
    private readonly session: Ort.InferenceSession,
    private readonly entry: ModelEntry,
  ) {
    this.past = entry.inputs.filter((spec) => spec.name.startsWith("past_key_values."));
    this.vocabulary = vocabularyOf(entry);
    this.reset();
  }

  /** Loads the model. Throws a FormatError where the browser cannot run it. */
  static async open(ort: OrtModule, bundle: Bundle): Promise<OrtBackend> {
    const { entry } = bundle.manifest;
    checkRunnable(entry, ort.env.versions.web ?? "0", bundle);
    const data = typeof entry.options.data === "string" ? entry.options.data : null;
    const external = data === null ? [] : [{ path: data, data: await bundle.read(data) }];
    const model = await bundle.read(entry.path);
    try {
      const options = { executionProviders: ["wasm"], externalData: external, logSeverityLevel: 4 as const };
      return new OrtBackend(ort, await ort.InferenceSession.create(model, options), entry);
    } catch (error) {
      throw unreadable(error);
    }
  }

  reset(): void {
    this.position = 0;
    this.cache = Object.fromEntries(this.past.map((spec) => [spec.name, this.empty(spec)]));
  }

  prefill(ids: readonly number[]): Promise<Float32Array> {
    if (!ids.length) throw usageError("no tokens to prefill", { wanted: "at least one" });
    return this.run(ids);
  }

  step(id: number): Promise<Float32Array> {
    return this.run([id]);
  }

  async close(): Promise<void> {
    this.cache = {};
    await this.session.release();
  }

  private async run(ids: readonly number[]): Promise<Float32Array> {
    const total = this.check(ids);
    const feeds = {
      input_ids: new this.ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      attention_mask: new this.ort.Tensor("int64", new BigInt64Array(total).fill(1n), [1, total]),
      ...this.cache,
    };
    let out: Ort.InferenceSession.OnnxValueMapType;
    try {
      out = await this.session.run(feeds);
    } catch (error) {
      throw formatError("onnxruntime-web failed to run the model", { got: reasonOf(error), hint: hintFor(error) });
    }
    for (const { name } of this.past) this.cache[name] = presentOf(out, name);
    this.position = total;
    return presentOf(out, "logits").data as Float32Array;
  }

  /** How many ids the cache holds after these. */
  private check(ids: readonly number[]): number {
    const total = this.position + ids.length;
    if (total > this.entry.context_length) {
      const hint = "begin a new chat, shorten the prompt, or export with a larger --context";
      const wanted = `at most ${this.entry.context_length}`;
      throw usageError("more tokens than the cache holds", { got: total, wanted, hint });
    }
    // The quantized embedding would read beyond its end.
    const bad = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < this.vocabulary));
    if (bad !== undefined) {
      throw usageError("a token that the model does not have", { got: bad, wanted: `0 to ${this.vocabulary - 1}` });
    }
    return total;
  }

  private empty(spec: TensorSpec): Ort.Tensor {
    return new this.ort.Tensor("float32", new Float32Array(0), [1, Number(spec.shape[1]), 0, Number(spec.shape[3])]);
  }
}

function presentOf(out: Ort.InferenceSession.OnnxValueMapType, name: string): Ort.Tensor {
  const value = out[name.replace("past_key_values.", "present.")];
  if (!value) throw formatError("the model does not give what its signature says", { wanted: name });
  return value as Ort.Tensor;
}

function vocabularyOf(entry: ModelEntry): number {
  const last = entry.outputs.find((spec) => spec.name === "logits")?.shape.at(-1);
  if (typeof last !== "number") {
    throw formatError("the model's signature has no logits", { got: entry.outputs.map((spec) => spec.name) });
  }
  return last;
}

function checkRunnable(entry: ModelEntry, installed: string, bundle: Bundle): void {
  if (entry.format !== "onnx") {
    const hint = "make one for the browser: satchel export MODEL --device pixel-9, or another device with ONNX";
    throw formatError("a browser cannot run this bundle", { got: entry.format, wanted: "onnx", hint });
  }
  if (entry.vision !== undefined) {
    throw formatError("this app shows no pictures to a model", { hint: "use a bundle of a model of text only" });
  }
  const wanted = String(entry.options.minimum_onnxruntime ?? "0");
  if (older(installed, wanted)) {
    const reason = String(entry.options.minimum_onnxruntime_reason ?? "");
    throw formatError("onnxruntime-web is too old for this model", { got: installed, wanted: `${wanted} (${reason})` });
  }
  const size = bundle.manifest.files.find((file) => file.path === entry.options.data)?.bytes ?? 0;
  if (size > BYTES_TO_LOAD) {
    const got = `${Math.round(size / 1e6)} MB`;
    throw formatError("the model is too large for a browser", { got, wanted: `at most ${BYTES_TO_LOAD / 1e6} MB` });
  }
}

function older(version: string, than: string): boolean {
  const [a, b] = [version, than].map((v) => v.split(".").map((part) => Number.parseInt(part, 10) || 0));
  return (a![0]! - b![0]! || (a![1] ?? 0) - (b![1] ?? 0)) < 0;
}

function unreadable(error: unknown): Error {
  return formatError("onnxruntime-web cannot read the model", { got: reasonOf(error), hint: hintFor(error) });
}

/** onnxruntime's messages name what is missing; this says what a person can do about it. */
function hintFor(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  if (/alloc|memory|out of bounds|RangeError|^\d+$/i.test(message)) {
    return "the browser has too little memory for this model: close other tabs, or export a smaller one (--max-size)";
  }
  if (/not implemented|NOT_IMPLEMENTED|no such (op|kernel)|could not find an implementation/i.test(message)) {
    return "onnxruntime-web lacks an operator that this model needs: export it with other --weights, such as int8";
  }
  return "export the bundle again, or fetch it again";
}
