import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

import { ChatTemplate, encodeChat, splitAt, type Message } from "../src/core/template";
import { Tokenizer } from "../src/core/tokenizer";
import { vectors, VECTORS } from "./support";

interface Vectors {
  templates: Record<string, string>;
  special: Record<string, string>;
  tokenizer: string;
  cases: { template: string; messages: Message[]; rendered: string | null; ids: number[] | null }[];
}

describe("chat template", () => {
  const { templates, special, tokenizer: name, cases } = vectors<Vectors>("templates.json");
  const tokenizer = Tokenizer.read(readFileSync(join(VECTORS, "tokenizers", `${name}.json`)), 100_000);

  it.each(cases)("$template, case %#", ({ template: key, messages, rendered, ids }) => {
    const template = new ChatTemplate(templates[key]!, special);
    if (rendered === null) {
      expect(() => template.render(messages)).toThrow("refuses this conversation");
    } else {
      expect(template.render(messages)).toBe(rendered);
      expect(encodeChat(tokenizer, template, messages).ids).toEqual(ids);
    }
  });

  it("cuts at the leftmost, then the longest control token", () => {
    const tokens = new Map([["<a>", 1], ["<a>b", 2], ["b", 3]]);
    expect(splitAt("x<a>bb<a>", tokens)).toEqual([["x", null], ["<a>b", 2], ["b", 3], ["<a>", 1]]);
  });

  it("refuses what is no template, or no conversation", () => {
    expect(() => new ChatTemplate("{% for %}")).toThrow("not a valid template");
    expect(() => new ChatTemplate("").render([])).toThrow("a list of messages");
  });
});
