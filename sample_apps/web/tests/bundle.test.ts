import { describe, expect, it } from "vitest";

import { openBundle } from "../src/core/bundle";
import { checkPath } from "../src/core/manifest";
import { parseJson } from "../src/core/strict-json";
import { MemorySource, tinyBundlePath } from "./support";

const encoded = (text: string) => new TextEncoder().encode(text);

async function opened(damage: (source: MemorySource) => void, verify = true): Promise<unknown> {
  const source = await MemorySource.from(tinyBundlePath());
  damage(source);
  return openBundle(source, { verify });
}

function edited(source: MemorySource, edit: (text: string) => string): void {
  source.files.set("manifest.json", encoded(edit(new TextDecoder().decode(source.files.get("manifest.json")))));
}

describe("a bundle", () => {
  it("opens whole, with progress up to its size", async () => {
    const source = await MemorySource.from(tinyBundlePath());
    let files = 0;
    const bundle = await openBundle(source, { onFile: async () => void files++ });
    expect(files).toBe(bundle.manifest.files.length);
    expect(bundle.manifest.plan.device).toBe("pixel-9");
    expect(bundle.id).toMatch(/^[0-9a-f]{64}$/);
  });

  it.each<[string, (source: MemorySource) => void, RegExp]>([
    ["without a manifest", (s) => s.files.delete("manifest.json"), /not a bundle: manifest.json cannot be read/],
    ["with a file missing", (s) => s.files.delete("model.onnx"), /files are missing.*no model.onnx/],
    ["with a file too many", (s) => s.files.set("x.txt", encoded("x")), /does not list|that the manifest does not list/],
    ["with a bit turned", (s) => { s.files.get("model.onnx.data")![5]! ^= 1; }, /model.onnx.data: its sha256 is not/],
    ["cut short", (s) => s.files.set("LICENSE", encoded("")), /LICENSE: its size is not the manifest's/],
    ["of a later schema", (s) => edited(s, (t) => t.replace('"schema_version": 1', '"schema_version": 2')), /unknown schema/],
    ["with an unknown key", (s) => edited(s, (t) => t.replace('"bos_id"', '"bos": 1,\n"bos_id"')), /unknown keys in manifest.json.tokens/],
    ["with a key missing", (s) => edited(s, (t) => t.replace(/"prepend_bos": \w+,/, "")), /keys missing from manifest.json.tokens/],
    ["with a repeated key", (s) => edited(s, (t) => t.replace('"tokens": {', '"model": 1, "tokens": {')), /occurs twice/],
    ["with a path outside", (s) => edited(s, (t) => t.replace('"path": "LICENSE"', '"path": "../LICENSE"')), /outside the bundle/],
    ["with a manifest cut short", (s) => edited(s, (t) => t.slice(0, 500)), /manifest.json is not valid JSON/],
  ])("%s is refused", async (_, damage, message) => {
    await expect(opened(damage)).rejects.toThrow(message);
  });

  it("passes over what the Finder leaves", () => opened((s) => s.files.set("golden/.DS_Store", encoded("x"))));

  it("is told from another by sizes alone where it was verified before", async () => {
    await opened((s) => { s.files.get("LICENSE")![0]! ^= 1; }, false);
    await expect(opened((s) => s.files.set("LICENSE", encoded("")), false)).rejects.toThrow("its size");
  });
});

describe("strict JSON", () => {
  it.each(['{"a":1,"a":2}', "[NaN]", "[1e999]", "[9007199254740993]", '["\\ud800"]', "\ufeff1", "[1,]", '{"a":{"b":1,"\\u0062":1}}'])(
    "%s is refused",
    (text) => expect(() => parseJson(encoded(text), "x.json")).toThrow("x.json is not valid JSON"),
  );

  it("keeps equal keys of different objects apart", () => {
    expect(parseJson(encoded('[{"a":"{\\"a\\":"},{"a":{"a":1}}]'), "x")).toEqual([{ a: '{"a":' }, { a: { a: 1 } }]);
  });

  it.each(["../a", "/a", "a//b", "a/./b", "a\\b", "C:a", "a\u0001", "a/" + "x".repeat(256)])("the path %s is refused", (path) => {
    expect(() => checkPath(path)).toThrow("outside the bundle or is not portable");
  });
});
