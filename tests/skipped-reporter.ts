import { relative } from 'node:path'
import type { Reporter, TestModule } from 'vitest/node'

/** What a title says behind its tests' subject, parentheses inside it included. */
const REASON = /\(skipped\b:?\s*((?:[^()]|\([^()]*\))*)\)/

/** Says at the end why tests were skipped, which the default reporter does not: titles carry the reason. */
export default class SkippedReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = new Map<string, number>()
    for (const module of modules) {
      for (const { fullName } of module.children.allTests('skipped')) {
        const reason = REASON.exec(fullName)?.[1] ?? `no reason given: ${fullName}`
        const line = `${relative(process.cwd(), module.moduleId)}: ${reason}`
        counts.set(line, (counts.get(line) ?? 0) + 1)
      }
    }
    if (counts.size === 0) return
    console.log('\nSkipped:')
    for (const [line, count] of counts) console.log(`  ${count} in ${line}`)
  }
}
