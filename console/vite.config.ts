import { defineConfig } from 'vite'

/** The page is built into console/dist, which is committed and served as it is: nothing is built at install or start. */
export default defineConfig({
  root: import.meta.dirname,
  base: './',
  build: { outDir: 'dist', emptyOutDir: true, target: 'es2022', modulePreload: false, assetsInlineLimit: 0 },
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
})
