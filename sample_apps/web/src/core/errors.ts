/** The errors that a person may see, the same set as runtime/errors.py; each says what, the value got and wanted, and a next step. */

export type ErrorKind = "BundleError" | "TokenizerError" | "FormatError" | "UsageError" | "OutputError";

export interface Details {
  got?: unknown;
  wanted?: unknown;
  hint?: string;
}

export class SatchelError extends Error {
  constructor(
    readonly kind: ErrorKind,
    readonly what: string,
    readonly details: Details = {},
  ) {
    super(sentence(what, details));
    this.name = kind;
  }
}

export const bundleError = (what: string, details?: Details) => new SatchelError("BundleError", what, details);
export const tokenizerError = (what: string, details?: Details) => new SatchelError("TokenizerError", what, details);
export const formatError = (what: string, details?: Details) => new SatchelError("FormatError", what, details);
export const usageError = (what: string, details?: Details) => new SatchelError("UsageError", what, details);
export const outputError = (what: string, details?: Details) => new SatchelError("OutputError", what, details);

/** Thrown where a person has cancelled. */
export class Cancelled extends Error {
  override readonly name = "Cancelled";
}

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Cancelled("cancelled");
}

/** What any thrown value says, on one line, for a message. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.split("\n")[0] ?? "";
}

function sentence(what: string, { got, wanted, hint }: Details): string {
  const parts = [what];
  if (got !== undefined) parts.push(`got ${short(got)}`);
  if (wanted !== undefined) parts.push(`wanted ${short(wanted)}`);
  return parts.join("; ") + (hint ? `. ${hint[0]?.toUpperCase()}${hint.slice(1)}.` : "");
}

function short(value: unknown): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  return text.length <= 200 ? text : text.slice(0, 197) + "...";
}
