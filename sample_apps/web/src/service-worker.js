/**
 * Keeps the app's own files, whose names and version vite.config.ts puts in, and serves them first from there. Every
 * answer gets the headers that make a page cross-origin isolated, without which a browser gives it no threads.
 */

const VERSION = "__VERSION__";
const FILES = /** @type {string[]} */ (JSON.parse('__FILES__'));
const PREFIX = "satchel-app-";

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(PREFIX + VERSION)
      .then((cache) => cache.addAll(FILES))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOthers().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const own = request.url.startsWith(self.registration.scope);
  if (request.method === "GET" && own) event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(PREFIX + VERSION);
  const key = request.mode === "navigate" ? "./" : request;
  const kept = await cache.match(key, { ignoreSearch: request.mode === "navigate", ignoreVary: true });
  return isolated(kept ?? (await fetch(request)));
}

function isolated(response) {
  if (response.type === "opaque" || response.type === "error") return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response([204, 304].includes(status) ? null : response.body, { status, statusText, headers });
}

async function removeOthers() {
  const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== PREFIX + VERSION);
  await Promise.all(old.map((name) => caches.delete(name)));
}
