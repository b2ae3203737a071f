import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../../engine/errors.ts'
import { resolveChatTemplate } from '../../engine/text/chat-template.ts'
import {
  type EncodedExample,
  sequencesOf,
  type TrainConversation,
  type TrainExample,
} from '../../engine/text/conversation.ts'
import { encodeRow } from '../../engine/text/encode-answers.ts'
import { packExamples, packText } from '../../engine/text/packing.ts'
import { templateChoice } from '../../engine/text/template-choice.ts'
import type { ModelTokenizer } from '../../engine/text/tokenizer.ts'
import { checkEndOfTurn } from '../../engine/text/turns.ts'
import type { EvaluationSet } from '../../engine/train/accumulate.ts'
import { trainedTokenCount } from '../../engine/train/batch.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import { type LoadedDataset, loadDataset } from '../datasets/load.ts'
import type { DatasetRegistry } from '../datasets/registry.ts'
import { splitExamples } from '../datasets/split.ts'

export interface Warning {
  code: string
  message: string
}

/** What a run learns from, ready to be batched. */
export interface PreparedData {
  examples: TrainExample[]
  evalExamples: TrainExample[]
  /** The same in the sets that are evaluated. */
  evaluationSets: EvaluationSet[]
  /** Training examples that the cutoff cut (or that fill it exactly). */
  truncated: number
  warnings: Warning[]
}

export interface PrepareOptions {
  config: TrainConfig
  tokenizer: ModelTokenizer
  datasets: DatasetRegistry
  signal?: AbortSignal
}

/** Examples that are encoded before timers and messages get their turn. */
const EXAMPLES_A_TURN = 64

/**
 * Reads a run's datasets, holds the evaluation part back, encodes and packs. The same configuration and data give the
 * same examples in the same order, which a resumed run relies on.
 *
 * @throws EngineError for an unknown dataset, no usable row, an unknown template, or when nothing is left to learn.
 */
export async function prepareData(options: PrepareOptions): Promise<PreparedData> {
  const { config } = options
  const warnings: Warning[] = []
  const loaded = await load(options, config.dataset, warnings)
  const split = config.eval_dataset
    ? { train: loaded.conversations, evaluation: [] }
    : splitExamples(loaded.conversations, config.val_size, config.seed)
  const train = await encode(options, split.train, warnings)
  requireTrainable(config, split.train, train.learnedFrom)
  const evaluationSets = await prepareEvaluation(options, split.evaluation, warnings)
  return {
    examples: train.examples,
    evalExamples: evaluationSets.flatMap(({ examples }) => [...examples]),
    evaluationSets,
    truncated: train.truncated,
    warnings,
  }
}

/** The held-out rows, or the sets of eval_dataset: one, or each of them by its name with eval_on_each_dataset. */
async function prepareEvaluation(
  options: PrepareOptions,
  heldOut: readonly TrainConversation[],
  warnings: Warning[],
): Promise<EvaluationSet[]> {
  const { eval_dataset: names, eval_on_each_dataset: eachAlone } = options.config
  if (!names) {
    if (heldOut.length === 0) return []
    const { examples } = await encode(options, heldOut, [])
    return examples.length === 0 ? [] : [{ examples }]
  }
  const sets: EvaluationSet[] = []
  for (const group of eachAlone ? names.map((name) => [name]) : [names]) {
    const { conversations } = await load(options, group, warnings).catch(ofEvaluation)
    const { examples, learnedFrom } = await encode(options, conversations, [])
    requireTrainable(options.config, conversations, learnedFrom)
    sets.push(eachAlone ? { name: group[0], examples } : { examples })
  }
  return sets
}

/** Errors of the evaluation's sets name its field. */
function ofEvaluation(error: unknown): never {
  if (!(error instanceof EngineError) || error.param !== 'dataset') throw error
  const { kind, code, message, cause } = error
  throw new EngineError(kind, code, message, { param: 'eval_dataset', cause })
}

/** @throws EngineError `no_valid_samples` naming each dataset that has no token to learn at all. */
function requireTrainable(
  config: TrainConfig,
  conversations: readonly TrainConversation[],
  learnedFrom: ReadonlySet<string>,
): void {
  const names = new Set(conversations.flatMap(({ dataset }) => dataset ?? []))
  const barren = [...names].filter((name) => !learnedFrom.has(name))
  if (barren.length === 0) return
  throw new EngineError(
    'invalid',
    'no_valid_samples',
    `Dataset ${barren.join(', ')}: no example has a token to learn within cutoff_len ${config.cutoff_len}; raise it or ` +
      'check the dataset.',
    { param: 'cutoff_len' },
  )
}

async function load(
  { config, datasets }: PrepareOptions,
  names: readonly string[],
  warnings: Warning[],
): Promise<LoadedDataset> {
  const { stage, max_samples: maxSamples, seed } = config
  const loaded = await loadDataset(datasets, names, { stage, maxSamples, seed })
  const [first] = loaded.skipped
  if (first) {
    warnings.push({
      code: 'rows_skipped',
      message: `${loaded.skippedCount} of ${loaded.rows} rows are left out; the first is ${first.place}: ${first.reason}`,
    })
  }
  const verdicts = new Set(
    loaded.conversations.flatMap((row) => (row.kind === 'feedback' ? [row.desirable] : [])),
  )
  if (verdicts.size === 1) {
    const message = `Your dataset only has one preference type: every \`kto_tag\` of ${names.join(', ')} is ${[...verdicts][0]}.`
    warnings.push({ code: 'one_preference_type', message })
  }
  return loaded
}

interface Encoded {
  examples: TrainExample[]
  truncated: number
  /** The datasets that have something to learn. */
  learnedFrom: Set<string>
}

async function encode(
  options: PrepareOptions,
  conversations: readonly TrainConversation[],
  warnings: Warning[],
): Promise<Encoded> {
  const { config, tokenizer } = options
  const cutoffLength = config.cutoff_len
  if (config.stage === 'pt' && config.packing) {
    const texts = conversations.map((conversation) => (conversation.kind === 'text' ? conversation.text : ''))
    const learnedFrom = new Set(conversations.flatMap(({ dataset }) => dataset ?? []))
    const { textEnd: end } = resolveChatTemplate(tokenizer, templateChoice(config))
    return { examples: packText(texts, tokenizer, { cutoffLength, end }), truncated: 0, learnedFrom }
  }
  // LLaMA-Factory cuts examples one token shorter where it packs them, so that the longest still fits into a sequence.
  const exampleLength = config.packing ? cutoffLength - 1 : cutoffLength
  const encoded = await encodeAll(options, conversations, exampleLength, warnings)
  const reachesCutoff = ({ inputIds }: EncodedExample) => inputIds.length >= exampleLength
  const truncated = encoded.filter((example) => sequencesOf(example).some(reachesCutoff)).length
  const learned = encoded.filter(isLearned)
  const learnedFrom = new Set(
    conversations.flatMap(({ dataset }, index) => (isLearned(encoded[index]!) ? (dataset ?? []) : [])),
  )
  warnAbout(warnings, 'nothing_to_learn', encoded.length - learned.length, 'have no token to learn')
  if (!config.packing) return { examples: learned, truncated, learnedFrom }
  const { packed } = packExamples(learned.flatMap(sequencesOf), {
    cutoffLength,
    neatPacking: config.neat_packing,
  })
  return { examples: packed, truncated, learnedFrom }
}

async function encodeAll(
  { config, tokenizer, signal }: PrepareOptions,
  conversations: readonly TrainConversation[],
  cutoffLength: number,
  warnings: Warning[],
): Promise<TrainExample[]> {
  const template = resolveChatTemplate(tokenizer, templateChoice(config))
  if (config.stage !== 'pt') {
    const endless = checkEndOfTurn(template, tokenizer)
    if (template.warning) warnings.push({ code: 'no_chat_template', message: template.warning })
    if (endless) warnings.push({ code: 'no_end_of_turn', message: endless })
  }
  const encoding = {
    template,
    cutoffLength,
    trainOnPrompt: config.train_on_prompt,
    maskHistory: config.mask_history,
  }
  const encoded: TrainExample[] = []
  for (const [index, conversation] of conversations.entries()) {
    if (index % EXAMPLES_A_TURN === 0) {
      await setImmediate()
      signal?.throwIfAborted()
    }
    encoded.push(atItsPlace(conversation, () => encodeRow(conversation, tokenizer, encoding)))
  }
  return encoded
}

/** Errors of encoding name the row. */
function atItsPlace<T>({ dataset, place }: TrainConversation, run: () => T): T {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof EngineError) || place === undefined || error.code === 'incompatible_options') {
      throw error
    }
    const { kind, code, message, cause } = error
    throw new EngineError(kind, code, `Dataset ${dataset}: ${place}: ${message}`, { param: 'dataset', cause })
  }
}

/** Whether each sequence of an example has a token to learn. */
function isLearned(example: TrainExample): boolean {
  return sequencesOf(example).every((sequence) => trainedTokenCount(sequence) > 0)
}

function warnAbout(warnings: Warning[], code: string, count: number, why: string): void {
  if (count > 0) warnings.push({ code, message: `${count} examples ${why} and are left out.` })
}
