import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

import { TextStream } from "../src/core/stream";
import { Tokenizer } from "../src/core/tokenizer";
import { vectors, VECTORS } from "./support";

interface Case {
  text: string;
  ids: number[];
  /** Null where it is refused. */
  literal: number[] | null;
  decoded: string;
  pieces: string[];
}

const NAMES = readdirSync(join(VECTORS, "tokens")).map((file) => file.replace(".json", ""));

describe.each(NAMES)("tokenizer %s", (name) => {
  const tokenizer = Tokenizer.read(readFileSync(join(VECTORS, "tokenizers", `${name}.json`)), 100_000);
  const cases = vectors<Case[]>(`tokens/${name}.json`);

  it("has 200 texts", () => expect(cases.length).toBe(200));

  it("gives the reference's ids", () => {
    const wrong = cases.filter((c) => tokenizer.encode(c.text).join() !== c.ids.join());
    expect(wrong.map((c) => [c.text, tokenizer.encode(c.text), c.ids])).toEqual([]);
  });

  it("gives the reference's ids where controls are only characters", () => {
    for (const { text, literal } of cases) {
      if (literal === null) expect(() => tokenizer.encodeLiterally(text), text).toThrow("into a control token");
      else expect([text, tokenizer.encodeLiterally(text)]).toEqual([text, literal]);
    }
  });

  it("gives the reference's text, whole and as it is streamed", () => {
    for (const { ids, decoded, pieces } of cases) {
      expect(tokenizer.decode(ids)).toBe(decoded);
      const stream = new TextStream(tokenizer);
      expect([...ids.map((id) => stream.push(id)), stream.flush()]).toEqual(pieces);
    }
  });
});
