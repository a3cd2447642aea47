/** @huggingface/tokenizers, made to say what the Python library says where the two differ. */

import { Tokenizer, type Unigram } from "@huggingface/tokenizers";

/** tokenizer.json, as far as it is looked into here. */
export interface TokenizerFile {
  added_tokens: { id: number; content: string; special: boolean }[];
  pre_tokenizer: Part | null;
  model: { type?: string; byte_fallback?: boolean };
}

interface Part {
  type: string;
  individual_digits?: boolean;
  pretokenizers?: Part[];
}

export function makePieces(file: TokenizerFile): Tokenizer {
  const pieces = new Tokenizer({ ...file, pre_tokenizer: withAllDigits(file.pre_tokenizer) }, {});
  keepByteOrderMarks(pieces.decoder);
  if (file.model.type === "Unigram" && file.model.byte_fallback) fallBackToBytes(pieces.model as Unigram);
  return pieces;
}

/** "Digits" splits at every number, such as a half or a Roman four, not at \d alone. */
function withAllDigits(part: Part | null): object | null {
  if (part?.type === "Sequence") return { ...part, pretokenizers: part.pretokenizers?.map(withAllDigits) };
  if (part?.type !== "Digits") return part;
  const pattern = { Regex: part.individual_digits ? "\\p{N}" : "\\p{N}+" };
  return { type: "Split", pattern, behavior: "Isolated", invert: false };
}

/** The decoder of bytes would drop U+FEFF. */
function keepByteOrderMarks(decoder: unknown): void {
  const part = decoder as { text_decoder?: TextDecoder; decoders?: unknown[] } | null;
  if (part?.text_decoder) part.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  part?.decoders?.forEach(keepByteOrderMarks);
}

/** A Unigram model's unknown characters become their bytes, if it has pieces for bytes. */
function fallBackToBytes(model: Unigram): void {
  const encode = model.encode.bind(model);
  model.encode = (tokens: string[]) => encode(tokens).flatMap((token) => inVocabulary(model, token));
}

function inVocabulary(model: Unigram, token: string): string[] {
  if (model.tokens_to_ids.has(token)) return [token];
  const hex = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  const bytes = Array.from(new TextEncoder().encode(token), hex);
  return bytes.every((byte) => model.tokens_to_ids.has(byte)) ? bytes : [token];
}
