import { defineConfig } from 'vitest/config'

// onnxruntime aborts the whole process when a worker thread dies during a run, so tests run in child processes.
export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    reporters: ['default', './tests/skipped-reporter.ts'],
    globalSetup: 'tests/temporary-folder.ts',
    pool: 'forks',
    poolOptions: { forks: { maxForks: 2 } },
    // Commands and servers of tests need not find out what else would work here; tests of devices say what they want.
    env: { ANNEAL_DEVICE: 'cpu' },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
})
