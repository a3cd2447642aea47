/**
 * A conversation -> ids: the chat template, and user text that cannot pass for control tokens.
 *
 * Spellings of control tokens in messages are replaced by one rare character each before rendering, and put back when
 * the pieces of the rendered text are encoded, as the characters that they are made of. runtime/chat.py is its twin.
 */

import { Template } from "@huggingface/jinja";

import { bundleError, reasonOf, usageError } from "./errors";
import { object } from "./schema";
import { parseJson } from "./strict-json";
import type { Tokenizer } from "./tokenizer";

export interface Message {
  role: string;
  content: string;
}

const STAND_INS = { first: 0x12000, last: 0x12399 }; // cuneiform: printable, without case, never normalized

export class ChatTemplate {
  private readonly template: Template;

  /** special: such as {"bos_token": "<s>"}, which templates refer to. Throws a BundleError. */
  constructor(
    source: string,
    private readonly special: Record<string, string> = {},
  ) {
    try {
      this.template = new Template(source);
    } catch (error) {
      throw bundleError("chat_template.jinja is not a valid template", { got: reasonOf(error) });
    }
  }

  /** The text that the model is given. Throws a UsageError where the template refuses the conversation. */
  render(messages: Message[], addGenerationPrompt = true): string {
    checkMessages(messages);
    const known = { tools: null, documents: null, ...this.special };
    try {
      return this.template.render({ ...known, messages, add_generation_prompt: addGenerationPrompt });
    } catch (error) {
      const hint = "most templates want the roles user and assistant in turn, and text as content";
      throw usageError("the chat template refuses this conversation", { got: reasonOf(error), hint });
    }
  }
}

/** The special tokens by name, as templates know them, out of tokenizer_config.json. */
export function specialTokens(config: Uint8Array): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [key, value] of Object.entries(
    object(parseJson(config, "tokenizer_config.json", false), "tokenizer_config.json"),
  )) {
    const content = value !== null && typeof value === "object" && !Array.isArray(value) ? value.content : value;
    if (key.endsWith("_token") && !key.startsWith("add_") && typeof content === "string") found[key] = content;
  }
  return found;
}

/** The text that a conversation becomes, and its ids. */
export function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: Message[],
): { rendered: string; ids: number[] } {
  const guard = new Guard(messages, [...tokenizer.controls.keys()]);
  const rendered = template.render(guard.hideAll(messages));
  return { rendered, ids: encodeGuarded(tokenizer, rendered, guard) };
}

/** Stand-ins for control tokens that occur in messages. */
export class Guard {
  private readonly standIns: [token: string, standIn: string][];

  constructor(messages: Message[], controls: string[]) {
    const text = messages.map((m) => `${m.role}\0${m.content}`).join("\0");
    const used = controls.filter((token) => token && text.includes(token)).sort(longestFirst);
    const free: string[] = [];
    for (let code = STAND_INS.first; code <= STAND_INS.last && free.length < used.length; code++) {
      const character = String.fromCodePoint(code);
      if (!text.includes(character)) free.push(character);
    }
    if (free.length < used.length) {
      throw usageError("a conversation spells out too many control tokens", { got: used.length, wanted: free.length });
    }
    this.standIns = used.map((token, i) => [token, free[i]!]);
  }

  get idle(): boolean {
    return !this.standIns.length;
  }

  hideAll(messages: Message[]): Message[] {
    return messages.map(({ role, content }) => ({ role: this.hide(role), content: this.hide(content) }));
  }

  /** Text with the spellings put back. */
  show(text: string): string {
    return this.standIns.reduce((shown, [token, standIn]) => shown.replaceAll(standIn, () => token), text);
  }

  private hide(text: string): string {
    return this.standIns.reduce((hidden, [token, standIn]) => hidden.replaceAll(token, () => standIn), text);
  }
}

/** Ids of rendered text; only control tokens that the template itself wrote become control ids. */
export function encodeGuarded(tokenizer: Tokenizer, text: string, guard: Guard): number[] {
  if (guard.idle) return tokenizer.encode(text);
  return splitAt(text, tokenizer.controls).flatMap(([piece, control]) =>
    control === null ? tokenizer.encodeLiterally(guard.show(piece)) : [control],
  );
}

/** Text cut at control tokens, leftmost and longest first: [piece, its id, or null for text between them]. */
export function splitAt(text: string, tokens: ReadonlyMap<string, number>): [string, number | null][] {
  const pieces: [string, number | null][] = [];
  for (let rest = text; rest; ) {
    let start = rest.length;
    let token = "";
    for (const candidate of tokens.keys()) {
      const found = candidate ? rest.indexOf(candidate) : -1;
      if (found >= 0 && (found < start || (found === start && candidate.length > token.length))) {
        [start, token] = [found, candidate];
      }
    }
    if (start) pieces.push([rest.slice(0, start), null]);
    if (token) pieces.push([token, tokens.get(token)!]);
    rest = rest.slice(start + token.length);
  }
  return pieces;
}

function checkMessages(messages: Message[]): void {
  if (!messages.length || messages.some((m) => typeof m.role !== "string" || typeof m.content !== "string")) {
    throw usageError("a conversation is a list of messages", { wanted: '[{"role": ..., "content": ...}]' });
  }
}

/** Longest first, then by code point, which UTF-16 order is not beyond the first plane. */
function longestFirst(a: string, b: string): number {
  return [...b].length - [...a].length || (a < b ? -1 : 1);
}
