/** What several tests need: bundles from disk, the vectors, and onnxruntime-web in node. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { BundleSource } from "../src/core/bundle";

export const VECTORS = new URL("../../vectors/", import.meta.url).pathname;

export function vectors<T>(path: string): T {
  return JSON.parse(readFileSync(join(VECTORS, path), "utf-8")) as T;
}

/** The tiny bundle that tests/sample_apps/vectors.py made. */
export function tinyBundlePath(): string {
  const folder = join(VECTORS, "bundle");
  return join(folder, readdirSync(folder).find((name) => name.endsWith(".satchel"))!);
}

/** A bundle on disk. */
export class DiskSource implements BundleSource {
  readonly name = "disk";
  constructor(private readonly folder: string) {}

  async list(): Promise<Map<string, number>> {
    const paths = readdirSync(this.folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const full = paths.map((entry) => join(entry.parentPath, entry.name));
    return new Map(full.map((path) => [path.slice(this.folder.length + 1), statSync(path).size]));
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    return new Uint8Array(await readFile(join(this.folder, path)));
  }
}

/** A bundle in memory, which a test may damage. */
export class MemorySource implements BundleSource {
  readonly name = "memory";
  constructor(readonly files: Map<string, Uint8Array<ArrayBuffer>>) {}

  static async from(folder: string): Promise<MemorySource> {
    const disk = new DiskSource(folder);
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    for (const path of (await disk.list()).keys()) files.set(path, await disk.read(path));
    return new MemorySource(files);
  }

  async list(): Promise<Map<string, number>> {
    return new Map([...this.files].map(([path, bytes]) => [path, bytes.length]));
  }

  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = this.files.get(path);
    if (!bytes) throw new Error(`no file ${path}`);
    return bytes.slice();
  }
}
