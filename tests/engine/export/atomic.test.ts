import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readManifest } from '../../../engine/export/manifest.ts'
import { exportSafetensors } from '../../../engine/export/safetensors.ts'
import { writeModel } from '../../../engine/weights/model-writer.ts'
import { WEIGHTS_FILE } from '../../../engine/weights/weight-folder.ts'
import { DoomedDisk } from '../weights/doomed-disk.ts'
import { scratchFolder, writeTinyModel } from '../weights/tiny-model.ts'

const base = scratchFolder()
const modelFolder = writeTinyModel(join(base, 'model'))
let parent: string
let outputFolder: string
beforeEach(() => {
  parent = scratchFolder()
  outputFolder = join(parent, 'out')
})
afterEach(() => rmSync(parent, { recursive: true }))
afterAll(() => rmSync(base, { recursive: true }))

const start = () => exportSafetensors({ modelFolder, outputFolder, dtype: 'bfloat16' })

/** Every file of the manifest with its bytes, and no other. */
function expectWhole(folder: string): void {
  const { files } = readManifest(folder)
  expect([...files.map(({ path }) => path), 'manifest.json'].sort()).toEqual(readdirSync(folder).sort())
  for (const { path, bytes, sha256 } of files) {
    const content = readFileSync(join(folder, path))
    expect([content.length, createHash('sha256').update(content).digest('hex')], path).toEqual([
      bytes,
      sha256,
    ])
  }
}

describe('an export whose process dies', () => {
  it('at any change of the disk, leaves nothing or a whole export, and the next start finishes it', async () => {
    const counting = new DoomedDisk(parent, Number.POSITIVE_INFINITY)
    expect(await counting.run(start)).toBe(true)
    expect(counting.changes).toBeGreaterThan(30)
    const outcomes = { nothing: 0, whole: 0 }
    for (let last = 1; last <= counting.changes; last++) {
      rmSync(outputFolder, { recursive: true, force: true })
      expect(await new DoomedDisk(parent, last).run(start), `change ${last}`).toBe(false)
      if (existsSync(outputFolder)) {
        expectWhole(outputFolder)
        outcomes.whole += 1
      } else {
        outcomes.nothing += 1
        if (last % 7 !== 0) continue
        await start()
        expectWhole(outputFolder)
        expect(readdirSync(parent), `change ${last}`).toEqual(['out'])
      }
    }
    // The rename is the only moment of change; what follows makes it durable.
    expect(outcomes.nothing).toBeGreaterThan(outcomes.whole)
  })

  it('while large weights are written past the page cache, leaves nothing or whole weights', async () => {
    const write = () => writeModel({ modelFolder, outputFolder, digests: true, largeBytes: 1 })
    const counting = new DoomedDisk(parent, Number.POSITIVE_INFINITY)
    expect(await counting.run(write)).toBe(true)
    const whole = readFileSync(join(outputFolder, WEIGHTS_FILE))
    for (let last = 1; last <= counting.changes; last++) {
      rmSync(outputFolder, { recursive: true, force: true })
      expect(await new DoomedDisk(parent, last).run(write), `change ${last}`).toBe(false)
      if (!existsSync(outputFolder)) continue
      expect(readFileSync(join(outputFolder, WEIGHTS_FILE)).equals(whole), `change ${last}`).toBe(true)
    }
  })

  it('by SIGKILL in the middle, leaves nothing that a start does not sweep', async () => {
    const script = `
      import { exportSafetensors } from ${JSON.stringify(new URL('../../../engine/export/safetensors.ts', import.meta.url).href)}
      await exportSafetensors({
        modelFolder: ${JSON.stringify(modelFolder)}, outputFolder: ${JSON.stringify(outputFolder)}, dtype: 'bfloat16', shardBytes: 200,
        onProgress: () => process.kill(process.pid, 'SIGKILL'),
      })`
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      stdio: 'ignore',
    })
    const signal = await new Promise((resolve) => child.once('close', (_, by) => resolve(by)))
    expect(signal).toBe('SIGKILL')
    expect(existsSync(outputFolder)).toBe(false)
    expect(readdirSync(parent)).toHaveLength(1)
    await start()
    expect(readdirSync(parent)).toEqual(['out'])
    expectWhole(outputFolder)
  })
})

describe('an export on a disk that fails', () => {
  it('at any change, leaves nothing behind and says what is wrong', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
    const counting = new DoomedDisk(parent, Number.POSITIVE_INFINITY)
    await counting.run(start)
    for (let last = 1; last <= counting.changes; last += 3) {
      rmSync(outputFolder, { recursive: true, force: true })
      let error: unknown
      const finished = await new DoomedDisk(parent, last, full).run(() =>
        start().catch((reason) => {
          error = reason
          throw reason
        }),
      )
      if (finished || existsSync(outputFolder)) continue // it failed in making the rename durable
      expect(error, `change ${last}`).toMatchObject({ kind: 'too_large', code: 'disk_full' })
      expect(readdirSync(parent), `change ${last}`).toEqual([])
    }
  })
})

/** A file system of a few megabytes, where this process may mount one. */
function mountSmall(folder: string): boolean {
  try {
    mkdirSync(folder)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const small = join(base, 'small')
const canMount = mountSmall(small)
if (canMount) afterAll(() => execFileSync('umount', [small]))

describe.skipIf(!canMount)(
  `a full disk${canMount ? '' : ' (skipped: mounting a small tmpfs needs root)'}`,
  () => {
    const options = { modelFolder, outputFolder: join(small, 'out'), dtype: 'bfloat16' as const }
    afterEach(() => {
      for (const name of readdirSync(small)) rmSync(join(small, name), { recursive: true })
    })

    it('is noticed before anything is written, with the bytes needed and free', async () => {
      writeFileSync(join(small, 'filler'), new Uint8Array(3.5e6))
      await expect(exportSafetensors(options)).rejects.toThrow(
        /needs \d+ bytes, but its disk has only \d+ free/,
      )
      expect(readdirSync(small)).toEqual(['filler'])
    })

    it('that fills up meanwhile fails the export with the bytes needed and free, and leaves nothing', async () => {
      const fill = () => {
        try {
          writeFileSync(join(small, 'filler'), new Uint8Array(8e6))
        } catch {
          // full, as it should be
        }
      }
      await expect(exportSafetensors({ ...options, onProgress: fill })).rejects.toMatchObject({
        kind: 'too_large',
        code: 'disk_full',
        message: expect.stringMatching(/is full: \d+ bytes are needed in all, and \d+ are free now/),
      })
      expect(readdirSync(small)).toEqual(['filler'])
    })
  },
)
