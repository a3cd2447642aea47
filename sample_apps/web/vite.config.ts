import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { defineConfig, type Plugin } from "vite";

/** What a browser wants to see before it gives a page threads; src/service-worker.js adds it on other servers. */
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** Writes sw.js with the names of all files of the app, and a version that changes when they do. */
function serviceWorker(): Plugin {
  return {
    name: "satchel-service-worker",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const names = Object.keys(bundle).filter((name) => name !== "index.html");
        const files = ["./", ...names.map((name) => `./${name}`)].sort();
        const hash = createHash("sha256");
        for (const name of Object.keys(bundle).sort()) {
          const part = bundle[name]!;
          hash.update(name).update(part.type === "chunk" ? part.code : part.source);
        }
        const source = readFileSync(new URL("./src/service-worker.js", import.meta.url), "utf-8")
          .replace("__VERSION__", hash.digest("hex").slice(0, 16))
          .replace("__FILES__", JSON.stringify(files));
        this.emitFile({ type: "asset", fileName: "sw.js", source });
      },
    },
  };
}

export default defineConfig({
  base: "./",
  appType: "mpa", // a file that is missing is missing, and not the page
  plugins: [serviceWorker()],
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "development|production"] },
  worker: { format: "es" },
  build: { target: "es2022", assetsInlineLimit: 0 },
  server: { headers: ISOLATED },
  preview: { headers: ISOLATED },
});
