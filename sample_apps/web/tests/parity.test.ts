import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import * as ort from "onnxruntime-web";
import { beforeAll, describe, expect, it } from "vitest";

import { OrtBackend } from "../src/backend-ort";
import { openBundle, type Bundle } from "../src/core/bundle";
import { readGolden, sequenceOf } from "../src/core/golden";
import { Session } from "../src/core/generate";
import appLimits from "../src/core/limits.json";
import { klFromTop, largestDifference, percentile, standardError } from "../src/core/metrics";
import { checkParity } from "../src/core/parity";
import { DiskSource, MemorySource, tinyBundlePath, vectors } from "./support";

ort.env.wasm.numThreads = 1;
interface Python {
  runs: { comparisons: Record<string, Record<string, { figure: string; value: number | null }[]>> }[];
}

interface Positions {
  starts: number[];
  rows: number[];
  best: number[];
  margin: number[];
  logits: number[];
  kl: Record<string, number[]>;
}

const RESULTS = new URL("../test-results/", import.meta.url).pathname;
const HOST = { device: "test", browser: "node", runtime: "onnxruntime-web", threads: 1 };

describe("a real bundle in onnxruntime-web", () => {
  let bundle: Bundle;
  let backend: OrtBackend;
  let session: Session;

  beforeAll(async () => {
    bundle = await openBundle(new DiskSource(tinyBundlePath()));
    backend = await OrtBackend.open(ort, bundle);
    session = await Session.open(bundle, backend);
  });

  it("says what its golden data say", async () => {
    const report = await checkParity(bundle, backend, HOST, 1);
    expect(report.rows.filter((row) => !row.passed && row.comparison === "lowering")).toEqual([]);
    const value = JSON.parse(report.json) as { passed: boolean; bundle: object; runs: { comparisons: object }[] };
    expect(value.passed).toBe(report.rows.every((row) => row.passed));
    expect(Object.keys(value.runs[0]!.comparisons)).toEqual(["lowering", "quality"]);
    const kl = report.rows.find((row) => row.comparison === "lowering" && row.figure === "kl_mean");
    expect(kl!.value).toBeLessThan(0.01);
    expect(kl!.value).toBeGreaterThan(0);
    // What `satchel validate` says of the same bundle, where kernels round otherwise by a little.
    const python = JSON.parse(readFileSync(join(tinyBundlePath(), "parity.json"), "utf-8")) as Python;
    for (const [route, figures] of Object.entries(python.runs[0]!.comparisons.quality!)) {
      for (const { figure, value } of figures) {
        const own = report.rows.find((r) => r.comparison === "quality" && r.route === route && r.figure === figure);
        expect(Math.abs(own!.value! - value!), `${route} ${figure}`).toBeLessThan(0.1 * value! + 0.01);
      }
    }
  });

  it("says what each position gave, so that devices can be put side by side", async () => {
    const report = await checkParity(bundle, backend, HOST, 1, { prompts: 2 });
    const value = JSON.parse(report.json) as { runs: { positions: Positions }[]; bundle: { manifest: string } };
    const { starts, rows, best, margin, logits, kl } = value.runs[0]!.positions;
    const golden = await readGolden(bundle);
    const lengths = golden.prompts.slice(0, 2).map((prompt) => sequenceOf(prompt).length);
    expect(starts).toEqual([0, lengths[0]]);
    expect(rows).toEqual(Array.from({ length: lengths[0]! + lengths[1]! }, (_, i) => i));
    expect(logits.length).toBe(4 * rows.length);
    const figure = report.rows.find((r) => r.comparison === "quality" && r.route === "decode" && r.figure === "kl_mean");
    expect(kl.quality!.reduce((a, b) => a + b, 0) / rows.length).toBeCloseTo(figure!.value!, 5);
    const top = golden.sets.get("reference")!.topIds;
    for (const [i, row] of rows.entries()) {
      const place = Array.from(top.subarray(row * golden.top, row * golden.top + 4)).indexOf(best[i]!);
      if (place < 0) continue;
      const others = logits.slice(4 * i, 4 * i + 4).filter((_, j) => j !== place);
      expect(logits[4 * i + place]! - Math.max(...others)).toBeGreaterThanOrEqual(margin[i]! - 1e-3);
    }
    expect(value.bundle.manifest).toBe(bundle.id);
    mkdirSync(RESULTS, { recursive: true });
    writeFileSync(join(RESULTS, "parity-node.json"), report.json); // tests/runtime/report has a copy
  });

  it("fails against the golden data of another model", async () => {
    const source = await MemorySource.from(tinyBundlePath());
    const strange = { ...bundle, has: () => true, manifest: bundle.manifest, read: async (path: string) => {
      const bytes = await source.read(path);
      if (path.endsWith("top_logits.f32")) new Float32Array(bytes.buffer).reverse();
      return bytes;
    } } as unknown as Bundle;
    const report = await checkParity(strange, backend, HOST, 1, { prompts: 2 });
    expect(report.passed).toBe(false);
    expect((JSON.parse(report.json) as { failures: unknown[] }).failures.length).toBeGreaterThan(0);
  });

  it("answers as golden's weights do, a prompt at a time or a piece at a time", async () => {
    const golden = await readGolden(bundle);
    const [prompt] = golden.prompts;
    const wanted = [...golden.sets.get("weights")!.greedyIds.slice(0, 8)];
    const ids: number[] = [];
    for await (const id of session.generateIds(prompt!.ids, { maxNewTokens: 8, stopIds: [] })) ids.push(id);
    expect(ids).toEqual(wanted);
    expect(session.finishReason).toBe("length");
  });

  it("encodes golden's prompts as golden does", async () => {
    for (const { text, ids } of (await readGolden(bundle)).prompts) {
      const chatted = session.template ? session.encodeChat([{ role: "user", content: text! }]) : [];
      const encoded = [session.encode(text!), chatted]; // golden cuts prompts to half of the context
      expect(encoded.map((all) => String(all.slice(0, ids.length)))).toContain(String(ids));
    }
  });

  it("goes on from what the cache holds, stops at stop ids, at the context, and when cancelled", async () => {
    const all = async (messages: { role: string; content: string }[], options = {}) => {
      let text = "";
      for await (const piece of session.chat(messages, { maxNewTokens: 4, ...options })) text += piece.text;
      return text;
    };
    const user = { role: "user", content: "hello" };
    const first = await all([user]);
    expect(await all([user])).toBe(first);
    const more = [user, { role: "assistant", content: first }, user];
    const again = await all(more);
    backend.reset();
    expect(await all(more)).toBe(again);

    const stop = await session.generateIds([1], { maxNewTokens: 1 }).next();
    for await (const _ of session.generateIds([1], { stopIds: [stop.value as number] })) throw new Error("not stopped");
    expect(session.finishReason).toBe("stop");

    let count = 0;
    for await (const _ of session.generateIds([1, 2], { maxNewTokens: 1000, stopIds: [] })) count++;
    expect([count, session.finishReason]).toEqual([bundle.manifest.entry.context_length - 1, "context"]);

    const abort = new AbortController();
    for await (const _ of session.generateIds([1, 2], { signal: abort.signal, stopIds: [] })) abort.abort();
    expect(session.finishReason).toBe("cancelled");
    await expect(all([{ role: "user", content: "a".repeat(100) }])).rejects.toThrow("cannot hold this conversation");
    await expect(backend.step(bundle.manifest.tokens.vocab_size)).rejects.toThrow("does not have");
  });

  it("samples alike with the same seed", async () => {
    const answer = async (seed: number) => {
      const ids: number[] = [];
      const options = { temperature: 2, seed, maxNewTokens: 12, stopIds: [] };
      for await (const id of session.generateIds([5, 6], options)) ids.push(id);
      return ids.join();
    };
    expect(await answer(3)).toBe(await answer(3));
    expect(await answer(3)).not.toBe(await answer(4));
  });
});

it("says what a browser cannot run", async () => {
  const bundle = await openBundle(new DiskSource(tinyBundlePath()), { verify: false });
  const entry = (change: object) => ({ ...bundle, manifest: { ...bundle.manifest, entry: { ...bundle.manifest.entry, ...change } } });
  const open = (change: object) => OrtBackend.open(ort, entry(change) as unknown as Bundle);
  await expect(open({ format: "coreml" })).rejects.toThrow("a browser cannot run this bundle");
  await expect(open({ vision: {} })).rejects.toThrow("shows no pictures");
  await expect(open({ options: { minimum_onnxruntime: "9.9" } })).rejects.toThrow("onnxruntime-web is too old");
});

describe("figures", () => {
  it("have the limits of the runtime", () => expect(appLimits).toEqual(vectors("limits.json")));

  it("are those of the formulas", () => {
    const logits = Float32Array.of(1, 2, 3, 0.5);
    const rest = Math.log(Math.exp(1) + Math.exp(0.5));
    expect(klFromTop(Int32Array.of(2, 1), Float32Array.of(3, 2), rest, logits)).toBeCloseTo(0, 12);
    expect(klFromTop(Int32Array.of(0), Float32Array.of(Math.log(3)), 0, Float32Array.of(0, 0))).toBeCloseTo(
      0.75 * Math.log(1.5) + 0.25 * Math.log(0.5), 6);
    expect(klFromTop(Int32Array.of(0), Float32Array.of(1), 0, Float32Array.of(NaN, 0))).toBeNaN();
    expect(percentile([1, 2, 3, 4], 0.5)).toBe(2.5);
    expect(standardError([1, 1, 3, 3], 2)).toBe(1);
    expect(largestDifference(Int32Array.of(0, 1), Float32Array.of(3, 3), Float32Array.of(NaN, 1))).toBeNaN();
  });
});
