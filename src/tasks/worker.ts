import { runChild } from '../jobs/child.ts'

runChild({
  train: async () => (await import('./train.ts')).trainTask,
  merge: async () => (await import('./merge.ts')).mergeTask,
  export: async () => (await import('./export.ts')).exportTask,
  evaluation: async () => (await import('./evaluate.ts')).evaluateTask,
  import: async () => (await import('./import.ts')).importTask,
})
