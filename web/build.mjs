// Builds the snippet from src/ into dist/: one script, its source map, its types. The same sources give
// the same bytes. Fails when it is larger than a page should have to load.
//   node build.mjs [--outdir DIR]     build
//   node build.mjs --test             run the tests of the parts that need no browser

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const MOST_BYTES = 4096; // gzipped
// Methods of the snippet's own parts, which no page and no browser knows: they may have short names.
const OWN_NAMES = /^(restore|narrow|resume|leave|hide|turn|seen|about)$/;
const HERE = dirname(fileURLToPath(import.meta.url));

const { values } = parseArgs({ options: { outdir: { type: "string" }, test: { type: "boolean" } } });

async function snippet(outdir) {
  const { outputFiles } = await build({
    absWorkingDir: HERE,
    entryPoints: ["src/index.ts"],
    outfile: "dist/tillwise.js",
    bundle: true,
    format: "iife",
    target: ["es2021"],
    charset: "utf8",
    minify: true,
    legalComments: "none",
    sourcemap: "external",
    write: false,
  });
  const bundled = Object.fromEntries(outputFiles.map((one) => [basename(one.path), one.text]));
  const { code: script, map } = await minify(bundled["tillwise.js"], {
    ecma: 2020,
    toplevel: true,
    compress: { passes: 3, unsafe_arrows: true, pure_getters: true, hoist_funs: true },
    mangle: { properties: { regex: OWN_NAMES } },
    sourceMap: { content: bundled["tillwise.js.map"], includeSources: true, filename: "tillwise.js" },
  });
  // The name that the gateway serves the map under: 16 hexadecimal digits of its SHA-256 in it.
  const digest = createHash("sha256").update(map).digest("hex").slice(0, 16);
  const code = `${script}\n//# sourceMappingURL=tillwise.${digest}.js.map\n`;
  mkdirSync(outdir, { recursive: true });
  writeFileSync(join(outdir, "tillwise.js"), code);
  writeFileSync(join(outdir, "tillwise.js.map"), map);
  copyFileSync(join(HERE, "src/tillwise.d.ts"), join(outdir, "tillwise.d.ts"));
  const zipped = gzipSync(code, { level: 9 }).length;
  const integrity = `sha384-${createHash("sha384").update(code).digest("base64")}`;
  console.log(`tillwise.js: ${code.length} bytes, ${zipped} gzipped (at most ${MOST_BYTES})`);
  console.log(`integrity="${integrity}"`);
  if (zipped > MOST_BYTES) {
    console.error(`tillwise.js is ${zipped - MOST_BYTES} bytes too large`);
    process.exitCode = 1;
  }
}

async function tests() {
  const folder = mkdtempSync(join(tmpdir(), "tillwise-"));
  try {
    const names = readdirSync(join(HERE, "tests")).filter((name) => name.endsWith(".test.ts"));
    await build({
      absWorkingDir: HERE,
      entryPoints: names.map((name) => `tests/${name}`),
      outdir: folder,
      outExtension: { ".js": ".mjs" },
      bundle: true,
      platform: "node",
      format: "esm",
      sourcemap: "inline",
    });
    const built = names.map((name) => join(folder, name.replace(/ts$/, "mjs")));
    process.exitCode = spawnSync(process.execPath, ["--test", ...built], { stdio: "inherit" }).status ?? 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (values.test) await tests();
else await snippet(values.outdir ?? join(HERE, "dist"));
