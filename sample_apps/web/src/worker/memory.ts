/** How much memory WebAssembly has taken: the memories are noted as onnxruntime-web makes them, since it does not tell. */

const made: WeakRef<WebAssembly.Memory>[] = [];

/** To be called before onnxruntime-web is started. */
export function noteMemories(): void {
  const Original = WebAssembly.Memory;
  WebAssembly.Memory = class extends Original {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      made.push(new WeakRef(this));
    }
  };
}

/** Bytes. */
export function wasmBytes(): number {
  return made.reduce((sum, ref) => sum + (ref.deref()?.buffer.byteLength ?? 0), 0);
}
