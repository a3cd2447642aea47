/** A loaded bundle that answers. runtime/session.py is its twin. */

import type { Backend } from "./backend";
import type { Bundle } from "./bundle";
import { Cancelled, throwIfCancelled, tokenizerError, usageError } from "./errors";
import { makeSampler, type Sampler, type Sampling } from "./sampling";
import { TextStream } from "./stream";
import { ChatTemplate, encodeChat, specialTokens, type Message } from "./template";
import { Tokenizer } from "./tokenizer";

export type FinishReason = "stop" | "length" | "context" | "cancelled";

export interface GenerateOptions extends Partial<Sampling> {
  maxNewTokens?: number;
  seed?: number;
  /** By default the manifest's. */
  stopIds?: readonly number[];
  signal?: AbortSignal;
  /** Called with the ids of the prompt that are done. */
  onPrefill?: (done: number, total: number) => void;
}

const PIECE = 64; // ids of a prompt a call: between calls an answer can be cancelled

export class Session {
  /** Why the last answer ended; "" before its end. */
  finishReason: FinishReason | "" = "";
  private cached: number[] | null = null; // what the backend's cache holds; null after a call that was interrupted

  private constructor(
    readonly bundle: Bundle,
    readonly backend: Backend,
    readonly tokenizer: Tokenizer | null,
    readonly template: ChatTemplate | null,
    /** Lets other messages in between two steps: a worker hears "cancel" only then. */
    private readonly pause: () => Promise<void>,
  ) {}

  /** Reads the tokenizer and the template. Throws a TokenizerError or BundleError. */
  static async open(bundle: Bundle, backend: Backend, pause: () => Promise<void> = async () => {}): Promise<Session> {
    const { vocab_size } = bundle.manifest.tokens;
    const has = (path: string) => bundle.has(path);
    const tokenizer = has("tokenizer.json") ? Tokenizer.read(await bundle.read("tokenizer.json"), vocab_size) : null;
    const config = has("tokenizer_config.json") ? specialTokens(await bundle.read("tokenizer_config.json")) : {};
    const source = await bundle.text("chat_template.jinja");
    return new Session(bundle, backend, tokenizer, source === null ? null : new ChatTemplate(source, config), pause);
  }

  /** A plain prompt -> ids, with bos in front where the model wants it. */
  encode(text: string): number[] {
    const { bos_id, prepend_bos } = this.bundle.manifest.tokens;
    const ids = this.needTokenizer().encode(text);
    return prepend_bos && bos_id !== null && ids[0] !== bos_id ? [bos_id, ...ids] : ids;
  }

  /** A conversation -> ids, ready for the answer. */
  encodeChat(messages: Message[]): number[] {
    const tokenizer = this.needTokenizer();
    if (!this.template) throw tokenizerError("the bundle has no chat template", { wanted: "chat_template.jinja" });
    return encodeChat(tokenizer, this.template, messages).ids;
  }

  /** Says that something else has used the backend, whose cache is then of no use. */
  forget(): void {
    this.cached = null;
  }

  /** The answer to a conversation, in pieces as it comes. What the cache holds of it already is not computed again. */
  chat(messages: Message[], options: GenerateOptions = {}): AsyncGenerator<{ text: string; tokens: number }> {
    const ids = this.template ? this.encodeChat(messages) : this.encode(messages.at(-1)?.content ?? "");
    return this.text(this.generateIds(ids, options, true));
  }

  /** The ids that follow `ids`, one by one as they are chosen. */
  async *generateIds(ids: readonly number[], options: GenerateOptions = {}, reuse = false): AsyncGenerator<number> {
    const room = this.room(ids, options.maxNewTokens);
    const sampler = this.sampler(options);
    const stop = new Set(options.stopIds ?? this.bundle.manifest.tokens.stop_ids);
    this.finishReason = "";
    try {
      let logits = await this.feed(ids, reuse, options);
      for (let count = 1; count <= room.ids; count++) {
        throwIfCancelled(options.signal);
        const id = sampler(logits);
        if (stop.has(id)) {
          this.finishReason = "stop";
          return;
        }
        yield id;
        await this.pause();
        throwIfCancelled(options.signal);
        if (count < room.ids) logits = await this.step(id);
      }
      this.finishReason = room.reason;
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
      this.finishReason = "cancelled";
    }
  }

  private async *text(ids: AsyncGenerator<number>): AsyncGenerator<{ text: string; tokens: number }> {
    const stream = new TextStream(this.needTokenizer());
    for await (const id of ids) yield { text: stream.push(id), tokens: 1 };
    yield { text: stream.flush(), tokens: 0 };
  }

  private sampler(options: GenerateOptions): Sampler {
    const { temperature, top_k, top_p } = this.bundle.manifest.generation;
    const how = {
      temperature: options.temperature ?? temperature,
      topK: options.topK ?? top_k,
      topP: options.topP ?? top_p,
    };
    return makeSampler(how, options.seed);
  }

  /** How long the answer may be, and what ends it there. Its last id needs no place in the cache. */
  private room(ids: readonly number[], maxNewTokens?: number): { ids: number; reason: FinishReason } {
    const { entry, tokens, generation } = this.bundle.manifest;
    if (!ids.length) throw usageError("the prompt is empty", { wanted: "at least one id" });
    if (maxNewTokens !== undefined && !(maxNewTokens >= 1)) {
      throw usageError("the length of an answer is out of range", { got: maxNewTokens, wanted: ">= 1" });
    }
    const bad = ids.find((id) => !(id >= 0 && id < tokens.vocab_size));
    if (bad !== undefined) {
      throw usageError("ids outside the vocabulary", { got: bad, wanted: `0..${tokens.vocab_size - 1}` });
    }
    const free = entry.context_length - ids.length + 1;
    if (free < 1) {
      const hint = "begin a new chat or shorten the message; `satchel export --context` makes a bundle with more room";
      const wanted = `at most ${entry.context_length} ids`;
      throw usageError("the context cannot hold this conversation", { got: `${ids.length} ids`, wanted, hint });
    }
    const wanted = maxNewTokens ?? generation.max_new_tokens;
    return wanted <= free ? { ids: wanted, reason: "length" } : { ids: free, reason: "context" };
  }

  /** Brings the cache to hold exactly `ids`; the logits after the last. */
  private async feed(ids: readonly number[], reuse: boolean, options: GenerateOptions): Promise<Float32Array> {
    let held = reuse ? this.cached : null;
    this.cached = null;
    if (!held || held.length >= ids.length || held.some((id, i) => id !== ids[i])) {
      this.backend.reset();
      held = [];
    }
    let logits = new Float32Array(0);
    for (let start = held.length; start < ids.length; start += PIECE) {
      throwIfCancelled(options.signal);
      const piece = ids.slice(start, start + PIECE);
      logits = (await this.backend.prefill(piece)) as Float32Array<ArrayBuffer>;
      options.onPrefill?.(Math.min(start + PIECE, ids.length), ids.length);
      await this.pause();
    }
    this.cached = [...ids];
    return logits;
  }

  private async step(id: number): Promise<Float32Array> {
    const held = this.cached;
    this.cached = null; // until the backend has returned: an interrupted call leaves the cache in between
    const logits = await this.backend.step(id);
    this.cached = [...(held ?? []), id];
    return logits;
  }

  private needTokenizer(): Tokenizer {
    if (!this.tokenizer) {
      throw tokenizerError("the bundle has no tokenizer", { hint: "export again without --no-tokenizer" });
    }
    return this.tokenizer;
  }
}
