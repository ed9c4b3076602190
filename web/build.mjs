// Builds the snippet and what brings consent platforms to it from src/ into dist/: two scripts, their
// source maps, their types. The same sources give the same bytes. Fails when one is larger than a page
// should have to load.
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

const SCRIPTS = [
  { name: "tillwise", entry: "src/index.ts", most: 4096 }, // bytes, gzipped
  { name: "consent", entry: "src/consent/index.ts", most: 1024 },
];
// Methods of the snippet's own parts, which no page and no browser knows: they may have short names.
// One that a browser knows of anything (`hide`, `restore`) would stay as it is.
const OWN_NAMES = /^(takeUp|narrow|goOn|leave|onHidden|turned|seen|about)$/;
const HERE = dirname(fileURLToPath(import.meta.url));

const { values } = parseArgs({ options: { outdir: { type: "string" }, test: { type: "boolean" } } });

async function script({ name, entry, most }, outdir) {
  const { outputFiles } = await build({
    absWorkingDir: HERE,
    entryPoints: [entry],
    outfile: `dist/${name}.js`,
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
  const { code: script, map } = await minify(bundled[`${name}.js`], {
    ecma: 2020,
    toplevel: true,
    compress: { passes: 3, unsafe_arrows: true, pure_getters: true, hoist_funs: true },
    mangle: { properties: { regex: OWN_NAMES } },
    sourceMap: { content: bundled[`${name}.js.map`], includeSources: true, filename: `${name}.js` },
  });
  // The name that the gateway serves the map under: 16 hexadecimal digits of its SHA-256 in it.
  const digest = createHash("sha256").update(map).digest("hex").slice(0, 16);
  const code = `${script}\n//# sourceMappingURL=${name}.${digest}.js.map\n`;
  writeFileSync(join(outdir, `${name}.js`), code);
  writeFileSync(join(outdir, `${name}.js.map`), map);
  const zipped = gzipSync(code, { level: 9 }).length;
  const integrity = `sha384-${createHash("sha384").update(code).digest("base64")}`;
  console.log(`${name}.js: ${code.length} bytes, ${zipped} gzipped (at most ${most})`);
  console.log(`integrity="${integrity}"`);
  if (zipped > most) {
    console.error(`${name}.js is ${zipped - most} bytes too large`);
    process.exitCode = 1;
  }
}

async function scripts(outdir) {
  mkdirSync(outdir, { recursive: true });
  for (const one of SCRIPTS) await script(one, outdir);
  copyFileSync(join(HERE, "src/tillwise.d.ts"), join(outdir, "tillwise.d.ts"));
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
else await scripts(values.outdir ?? join(HERE, "dist"));
