/** Merges once and prints seconds and peak memory as JSON. Arguments: base, adapter, output. */
import { mergeAdapter } from '../engine/adapter/merge.ts'
import { writeManifest } from '../engine/export/manifest.ts'

const [baseFolder, adapterFolder, outputFolder] = process.argv.slice(2) as [string, string, string]
const start = performance.now()
let written = 0
await mergeAdapter({
  baseFolder,
  adapterFolder,
  outputFolder,
  digests: true,
  finish: async (partial, digests) => {
    written = performance.now()
    await writeManifest(partial, { format: 'safetensors', dtype: 'BF16' }, undefined, digests)
  },
})
const end = performance.now()
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage()
console.log(
  JSON.stringify({
    seconds: (end - start) / 1000,
    writtenAfter: (written - start) / 1000,
    cpuSeconds: (userCPUTime + systemCPUTime) / 1e6,
    peakBytes: maxRSS * 1024,
  }),
)
