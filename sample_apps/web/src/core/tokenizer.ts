/**
 * Text <-> ids by the bundle's tokenizer.json. The parts (normalizers, pre-tokenizers, BPE and Unigram models, decoders)
 * are those of @huggingface/tokenizers, corrected where they differ from the Python library, to whose ids tests hold it.
 */

import type { Tokenizer as Pieces } from "@huggingface/tokenizers";

import { reasonOf, SatchelError, tokenizerError } from "./errors";
import { parseJson } from "./strict-json";
import { makePieces, type TokenizerFile } from "./tokenizer-pieces";

export class Tokenizer {
  private readonly whole: Pieces;
  private withoutControls: Pieces | null = null;
  /** Every token that the tokenizer marks as special -> its id. */
  readonly controls: ReadonlyMap<string, number>;

  private constructor(private readonly file: TokenizerFile) {
    this.whole = makePieces(file);
    this.controls = new Map(file.added_tokens.filter((t) => t.special).map((t) => [t.content, t.id]));
  }

  /** Reads tokenizer.json for a model of `vocabSize` ids. Throws a TokenizerError or BundleError. */
  static read(bytes: Uint8Array, vocabSize: number): Tokenizer {
    const file = parseJson(bytes, "tokenizer.json", false) as unknown as TokenizerFile;
    try {
      const tokenizer = new Tokenizer(file);
      const size = tokenizer.whole.get_vocab().size;
      // A model's embedding is often padded beyond the tokenizer, never the other way round.
      if (size > vocabSize) {
        throw tokenizerError("the tokenizer has more ids than the model", { got: size, wanted: `at most ${vocabSize}` });
      }
      return tokenizer;
    } catch (error) {
      if (error instanceof SatchelError) throw error;
      throw tokenizerError("tokenizer.json cannot be read", { got: reasonOf(error), hint: "export the bundle again" });
    }
  }

  /** Ids of a text, without the post-processor; spellings of control tokens become control tokens. */
  encode(text: string): number[] {
    return encodeWith(this.whole, text);
  }

  /** Ids of a text in which control tokens are only characters. */
  encodeLiterally(text: string): number[] {
    this.withoutControls ??= makePieces({
      ...this.file,
      added_tokens: this.file.added_tokens.filter((token) => !token.special),
    });
    const ids = encodeWith(this.withoutControls, text);
    const control = new Set(this.controls.values());
    if (ids.some((id) => control.has(id))) {
      throw tokenizerError("the tokenizer turns this text into a control token", { got: text.slice(0, 80) });
    }
    return ids;
  }

  /** The text of ids, control tokens left out. */
  decode(ids: readonly number[]): string {
    if (!ids.length) return "";
    return this.whole.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  }
}

function encodeWith(pieces: Pieces, text: string): number[] {
  if (!text) return [];
  const { ids } = pieces.encode(text, { add_special_tokens: false });
  if (ids.some((id) => id === undefined)) {
    throw tokenizerError("the tokenizer has no id for a part of this text", { got: text.slice(0, 80) });
  }
  return ids;
}
