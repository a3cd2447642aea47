/** Ids -> text as they come: whole characters only. runtime/generate.py is its twin. */

export interface Decoder {
  decode(ids: readonly number[]): string;
}

const BROKEN = "\ufffd";

/**
 * Detokenizes one id at a time. A token may end in the middle of a character, and its text may depend on the one before
 * it (a leading space): text is held back while it ends in a broken character, and always decoded with what precedes.
 */
export class TextStream {
  private readonly ids: number[] = [];
  private context = 0; // ids[context..done) were given out already, and are decoded again for what follows them
  private done = 0;

  constructor(private readonly decoder: Decoder) {}

  /** The text that this id completes; may be empty. */
  push(id: number): string {
    this.ids.push(id);
    const text = this.newText();
    if (!text || text.endsWith(BROKEN)) return "";
    [this.context, this.done] = [this.done, this.ids.length];
    return text;
  }

  /** What is held back at the end; bytes of a character that never was completed are dropped. */
  flush(): string {
    const text = this.newText().replace(/\ufffd+$/, "");
    this.context = this.done = this.ids.length;
    return text;
  }

  private newText(): string {
    const before = this.decoder.decode(this.ids.slice(this.context, this.done));
    return this.decoder.decode(this.ids.slice(this.context)).slice(before.length);
  }
}
