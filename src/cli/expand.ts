import { resolve } from 'node:path'
import { Command } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import { expandBlocks } from '../../engine/models/expand.ts'
import { withApplication } from './support/application.ts'
import { checkOutput } from './support/copy-result.ts'
import { readModelTarget } from './support/model-target.ts'
import { createProgressView } from './support/progress.ts'
import { readNumber } from './support/read-number.ts'
import { note, print, shownPath } from './support/terminal.ts'

interface ExpandCommandOptions {
  blocks: string
  output: string
}

/** `anneal expand`: puts blocks into a base model that pass their input on (LLaMA Pro). */
export function expandCommand(): Command {
  return new Command('expand')
    .description('Put new layers into a base model, to be trained alone (LLaMA Pro).')
    .argument('<model>', 'id or folder of a base model, or of a merge')
    .requiredOption('--blocks <number>', 'layers to put in; divides the number of layers')
    .requiredOption('--output <folder>', 'folder of the new model')
    .addHelpText('after', '\nExample:\n  anneal expand anneal-tiny --blocks 2 --output ./expanded')
    .action(expand)
}

async function expand(word: string, { blocks: asked, output }: ExpandCommandOptions): Promise<void> {
  const blocks = readNumber('--blocks', asked, (value) => Number.isInteger(value) && value > 0)!
  await checkOutput(output)
  const target = readModelTarget(word)
  await withApplication(async ({ models }) => {
    const model = await models.resolve(target.id)
    if (model.adapterFolder) {
      const message = `${model.id} is an adapter over ${model.root}. Merge it first, and expand the merge.`
      throw new EngineError('invalid', 'model_is_adapter', message, { param: 'model' })
    }
    const outputFolder = resolve(output)
    const view = createProgressView()
    note(`Expanding ${model.id} by ${blocks} layers.`)
    try {
      const layers = await expandBlocks({
        baseFolder: model.baseFolder,
        outputFolder,
        blocks,
        onProgress: ({ done, total }) => view.update({ value: done, total, unit: 'bytes ', details: '' }),
      })
      print(`Base model with ${layers} layers: ${shownPath(outputFolder)}`)
      const method = `finetuning_type=freeze use_llama_pro=true freeze_trainable_layers=${blocks}`
      print(`Train what is new: npx anneal train model=${shownPath(outputFolder)} ${method} dataset=…`)
    } finally {
      view.close()
    }
  }, target.widen)
}
