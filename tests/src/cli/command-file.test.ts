import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anneal, createWorkplace } from './run-anneal.ts'

const place = createWorkplace()
const { env } = place
const adapter = join(place.root, 'sft')
const file = (name: string, text: string) => {
  const path = join(place.root, name)
  writeFileSync(path, text)
  return path
}

beforeAll(async () => {
  const words = ['model=anneal-tiny', 'dataset=anneal_identity', 'max_steps=1', `output_dir=${adapter}`]
  const { code, stderr } = await anneal(['train', ...words], { env })
  expect({ code, stderr }).toMatchObject({ code: 0 })
})

afterAll(() => rmSync(place.root, { recursive: true, force: true }))

describe("LLaMA-Factory's files for other commands", () => {
  it('merge into export_dir', async () => {
    const output = join(place.root, 'merged')
    const yaml = `### model
model_name_or_path: SomeOne/anneal-tiny
adapter_name_or_path: ${adapter}
template: chatml
trust_remote_code: true
### export
export_dir: ${output}
export_size: 5
export_device: cpu
export_legacy_format: false
`
    const { code, stderr } = await anneal(['merge', file('merge.yaml', yaml)], { env })
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(stderr).toContain('Without effect here: trust_remote_code, export_device.')
    expect(existsSync(join(output, 'model.safetensors'))).toBe(true)
  })

  it('chat with an adapter folder in the named template', async () => {
    const yaml = `model_name_or_path: SomeOne/anneal-tiny
adapter_name_or_path: ${adapter}
template: chatml
infer_backend: huggingface
`
    const words = ['chat', file('chat.yaml', yaml), '--prompt', 'Hello!', '--max-tokens', '4', '--json']
    const { code, stdout, stderr } = await anneal(words, { env })
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(JSON.parse(stdout)).toMatchObject({ model: 'SomeOne/anneal-tiny', content: expect.any(String) })
  })

  it("export a whole model, or say the policy's reason", async () => {
    const output = join(place.root, 'exported')
    const whole = `model_name_or_path: anneal-tiny\nexport_dir: ${output}\nexport_size: 1\n`
    const quantized = `${whole}export_quantization_bit: 4\nexport_quantization_dataset: data/anneal_identity.jsonl\n`
    const [done, refused, adapted] = await Promise.all([
      anneal(['export', file('whole.yaml', whole)], { env }),
      anneal(['export', file('four.yaml', quantized.replace('exported', 'never'))], { env }),
      anneal(['export', file('adapted.yaml', `${whole}adapter_name_or_path: ${adapter}\n`)], { env }),
    ])
    expect({ code: done.code, stderr: done.stderr }).toMatchObject({ code: 0 })
    expect(existsSync(join(output, 'model.safetensors'))).toBe(true)
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('not exported at 4 bits') })
    expect(adapted).toMatchObject({ code: 2, stderr: expect.stringContaining('anneal merge') })
  })

  it('are refused with every field that is not done, before anything starts', async () => {
    const yaml = `model_name_or_path: anneal-tiny
adapter_name_or_path: ${adapter}
export_dir: ${join(place.root, 'never')}
export_hub_model_id: someone/else
export_legacy_format: true
`
    const { code, stderr } = await anneal(['merge', file('wrong.yaml', yaml)], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(/`export_hub_model_id` = "someone\/else", `export_legacy_format` = true/)
    expect(existsSync(join(place.root, 'never'))).toBe(false)
  })
})
