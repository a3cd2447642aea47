/**
 * Verified bundles in the browser's Cache storage, so that the app works offline. A bundle is one cache, named by the
 * sha256 of its manifest; manifest.json goes in last, so that a cache without it is one that was never completed.
 */

import type { BundleSource } from "../core/bundle";
import { outputError, reasonOf } from "../core/errors";
import type { StoredBundle } from "./protocol";

const PREFIX = "satchel-bundle-";
const MANIFEST = "manifest.json";

export class StoredSource implements BundleSource {
  constructor(
    readonly name: string,
    private readonly cache: Cache,
  ) {}

  async list(): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    for (const request of await this.cache.keys()) {
      const response = await this.cache.match(request);
      sizes.set(pathOf(request.url), Number(response?.headers.get("content-length")));
    }
    return sizes;
  }

  async read(path: string, received?: (bytes: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const response = await this.cache.match(keyOf(path));
    if (!response) throw new Error(`no file ${path}`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    received?.(bytes.length);
    return bytes;
  }
}

export async function openStored(id: string): Promise<StoredSource> {
  return new StoredSource(id, await caches.open(PREFIX + id));
}

/** Takes files as they are verified; `finish` makes them a bundle, `abandon` removes them. */
export class Keeper {
  private readonly name = `${PREFIX}incomplete-${crypto.randomUUID()}`;

  async put(path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await put(await caches.open(this.name), path, bytes, "");
  }

  async finish(id: string, name: string, manifest: Uint8Array<ArrayBuffer>): Promise<void> {
    const [from, to] = [await caches.open(this.name), await caches.open(PREFIX + id)];
    for (const key of await from.keys()) await to.put(key, (await from.match(key))!);
    await put(to, MANIFEST, manifest, name);
    await this.abandon();
  }

  async abandon(): Promise<void> {
    await caches.delete(this.name);
  }
}

export async function listStored(): Promise<StoredBundle[]> {
  const found: StoredBundle[] = [];
  for (const cacheName of await caches.keys()) {
    if (!cacheName.startsWith(PREFIX)) continue;
    const cache = await caches.open(cacheName);
    const manifest = await cache.match(keyOf(MANIFEST));
    const id = cacheName.slice(PREFIX.length);
    if (!manifest) await caches.delete(cacheName); // an earlier visit ended in the middle
    else found.push({ id, name: decodeURIComponent(manifest.headers.get("x-name") ?? id), bytes: await sizeOf(id) });
  }
  return found;
}

export async function forgetStored(id: string): Promise<void> {
  await caches.delete(PREFIX + id);
}

async function sizeOf(id: string): Promise<number> {
  const sizes = await (await openStored(id)).list();
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

async function put(cache: Cache, path: string, bytes: Uint8Array<ArrayBuffer>, name: string): Promise<void> {
  const headers = { "content-length": String(bytes.length), "x-name": encodeURIComponent(name) };
  try {
    await cache.put(keyOf(path), new Response(bytes, { headers }));
  } catch (error) {
    const hint = "free some space, or use the bundle without keeping it for offline use";
    throw outputError("the browser has no room to keep the bundle", { got: reasonOf(error), hint });
  }
}

function keyOf(path: string): string {
  return `/bundle/${encodeURIComponent(path)}`;
}

function pathOf(url: string): string {
  return decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "");
}
