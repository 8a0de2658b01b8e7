import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'electron-vite'
import { relative, resolve, sep } from 'node:path'
import type { Plugin } from 'vite'

// One build for the current Electron and for 25, which `npm start` falls back to: CommonJS for Node 18 and Chromium 114.
const root = import.meta.dirname
const nodeTarget = 'node18'
const webTarget = 'chrome114'

/** Native code and its loaders: these stay in node_modules, everything else is bundled (much of it is ESM only). */
const native = ['electron', 'onnxruntime-node', 'onnxruntime-common', 'sharp', 'libsql']

/**
 * Modules under models/ read data files that lie beside them. In the bundle their `import.meta.url` still points to where
 * they are in the tree, so those files need not be copied.
 */
const dataBesideModules: Plugin = {
  name: 'data-beside-modules',
  transform(code, id) {
    if (!id.startsWith(resolve(root, 'models') + sep) || !code.includes('import.meta.url')) return
    const place = JSON.stringify(relative(root, id).split(sep).join('/'))
    // Packaged, they lie beside the archive that holds the window: processes that are not Electron's read them, too.
    const base = `__dirname.replace(/app\\.asar(?=[\\\\/])/, 'app.asar.unpacked')`
    const url = `require('node:url').pathToFileURL(require('node:path').join(${base}, '../..', ${place})).href`
    return { code: code.replaceAll('import.meta.url', url), map: null }
  },
}

/** Flat output, so that `__dirname` is out/main (or out/preload) wherever a module ended up. */
const cjs = {
  format: 'cjs' as const,
  entryFileNames: '[name].cjs',
  chunkFileNames: '[name]-[hash].cjs',
}

export default defineConfig({
  main: {
    plugins: [dataBesideModules],
    build: {
      target: nodeTarget,
      externalizeDeps: false,
      minify: false,
      rollupOptions: {
        input: {
          index: resolve(root, 'main/electron/index.ts'),
          engine: resolve(root, 'main/engine/index.ts'),
          'picture-worker': resolve(root, 'main/engine/picture-worker.ts'),
          'adapter-worker': resolve(root, 'main/app/adapter-worker.ts'),
          'prompt-worker': resolve(root, 'main/engine/prompt-worker.ts'),
          'set-up': resolve(root, 'main/app/set-up.ts'),
          'model-worker': resolve(root, 'main/engine/model-worker.ts'),
        },
        external: native,
        output: cjs,
      },
    },
  },
  preload: {
    build: {
      target: nodeTarget,
      externalizeDeps: false,
      minify: false,
      rollupOptions: { input: { index: resolve(root, 'preload/index.ts') }, external: ['electron'], output: cjs },
    },
  },
  renderer: {
    root: resolve(root, 'renderer'),
    plugins: [svelte()],
    build: {
      target: webTarget,
      // A data: URL for a font or picture would need a hole in the content security policy.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      rollupOptions: { input: resolve(root, 'renderer/index.html') },
    },
  },
})
