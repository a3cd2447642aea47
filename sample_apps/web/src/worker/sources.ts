/** Where bundles come from in a browser. */

import type { BundleSource } from "../core/bundle";

type Bytes = Uint8Array<ArrayBuffer>;

/** A folder on a web server, whose files are asked for one by one. */
export class UrlSource implements BundleSource {
  readonly name: string;
  private readonly base: URL;

  constructor(url: string) {
    this.base = new URL(url.replace(/\/?(manifest\.json)?$/, "/"));
    this.name = decodeURIComponent(this.base.pathname.split("/").at(-2) ?? this.base.host);
  }

  async list(): Promise<null> {
    return null;
  }

  async read(path: string, received?: (bytes: number) => void, signal?: AbortSignal): Promise<Bytes> {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.base);
    const response = await fetch(url, { cache: "no-store", ...(signal ? { signal } : {}) });
    if (!response.ok) throw new Error(`${url.href}: ${response.status} ${response.statusText}`);
    return drained(response, received);
  }
}

/** Files of a folder that a person has picked, by their paths within the bundle. */
export class FileSource implements BundleSource {
  private readonly files: Map<string, File>;

  constructor(
    readonly name: string,
    files: [path: string, file: File][],
  ) {
    this.files = new Map(files);
  }

  async list(): Promise<Map<string, number>> {
    return new Map([...this.files].map(([path, file]) => [path, file.size]));
  }

  async read(path: string, received?: (bytes: number) => void): Promise<Bytes> {
    const file = this.files.get(path);
    if (!file) throw new Error(`no file ${path}`);
    return drained(new Response(file), received);
  }
}

async function drained(response: Response, received: (bytes: number) => void = () => {}): Promise<Bytes> {
  const parts: Bytes[] = [];
  if (response.body) {
    for await (const part of response.body as unknown as AsyncIterable<Bytes>) {
      parts.push(part);
      received(part.length);
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
