import { appendFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeFileVersion, encodeScalars, encodeSessionStart } from './event-file.ts'
import type { Tracker } from './tracker.ts'

/** Folder inside the run's, for `tensorboard --logdir`. */
const TENSORBOARD_FOLDER = 'runs'

/** Writes TensorBoard's event files, one for each start of a run, with transformers' tags (train/loss, eval/loss). */
export function tensorboardTracker(now: () => number = Date.now): Tracker {
  let file = ''
  return {
    name: 'tensorboard',
    start({ outputDir, resumedStep }) {
      const folder = join(outputDir, TENSORBOARD_FOLDER)
      const seconds = now() / 1000
      mkdirSync(folder, { recursive: true })
      // Readers take the files in the order of their names.
      const place = String(readdirSync(folder).length).padStart(4, '0')
      file = join(folder, `events.out.tfevents.${Math.floor(seconds)}.anneal.${place}`)
      writeFileSync(file, encodeFileVersion(seconds))
      if (resumedStep > 0) appendFileSync(file, encodeSessionStart(seconds, resumedStep + 1))
    },
    log({ time, step, values }) {
      const tagged = Object.fromEntries(Object.entries(values).map(([name, value]) => [tagOf(name), value]))
      appendFileSync(file, encodeScalars({ wallTime: time / 1000, step, values: tagged }))
    },
    finish() {},
  }
}

function tagOf(name: string): string {
  return name.startsWith('eval_') ? `eval/${name.slice('eval_'.length)}` : `train/${name}`
}
