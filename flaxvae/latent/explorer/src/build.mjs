// Bundles the page: node build.mjs [FILE], by default ../template.html.
// Needs esbuild: npm ci in this folder.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build, transform } from "esbuild";

const SOURCES = ["decoder.js", "engine.js", "main.js", "page.html", "pictures.js", "scatter.js", "style.css"];

const read = (name) => readFileSync(new URL(name, import.meta.url), "utf8");
const hash = createHash("sha256");
for (const name of SOURCES) hash.update(`${name}\n${read(name)}`);
const bundle = await build({
  entryPoints: [new URL("main.js", import.meta.url).pathname],
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  target: "es2021",
  charset: "utf8",
});
const style = await transform(read("style.css"), { loader: "css", minify: true });
const code = bundle.outputFiles[0].text.trim();
if (code.includes("</script")) throw new Error("the code must not end its own element");
const page = read("page.html")
  .replace("<!DOCTYPE html>", () => `<!DOCTYPE html>\n<!-- built by src/build.mjs from sources with sha256 ${hash.digest("hex")} -->`)
  .replace("__STYLE__", () => style.code.trim())
  .replace("__CODE__", () => code);
writeFileSync(process.argv[2] ?? new URL("../template.html", import.meta.url), page);
