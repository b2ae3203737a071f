import { runChild } from './child.ts'

runChild({
  train: async () => (await import('./tasks/train.ts')).trainTask,
  merge: async () => (await import('./tasks/merge.ts')).mergeTask,
  export: async () => (await import('./tasks/export.ts')).exportTask,
  evaluation: async () => (await import('./tasks/evaluate.ts')).evaluateTask,
  import: async () => (await import('./tasks/import.ts')).importTask,
})
