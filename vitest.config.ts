import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// One project per folder of test/. Engine tests load native code and large graphs: one file at a time, in child
// processes, because a worker thread that ends while ONNX Runtime runs takes the whole process with it.
const project = (name: string, extra: object = {}) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    pool: 'forks' as const,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    ...extra,
  },
})

export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      { plugins: [svelte()], ...project('unit', { testTimeout: 20_000 }) },
      project('golden', { fileParallelism: false }),
      project('engine', { fileParallelism: false }),
      project('e2e', { fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 }),
    ],
  },
})
