import { basename } from 'node:path'
import { stringify } from 'yaml'
import type { TrainConfig } from './config.ts'
import type { TrainEvent } from './events.ts'

/** README.md of a finished run: the hub's front matter, what was trained on what and how, and the losses. */
export function modelCard(config: TrainConfig, done: Extract<TrainEvent, { type: 'done' }>): string {
  const lora = config.finetuning_type === 'lora'
  const base = basename(config.model_name_or_path)
  const frontMatter = stringify({
    base_model: base,
    library_name: lora ? 'peft' : 'transformers',
    pipeline_tag: 'text-generation',
    datasets: config.dataset,
    tags: ['anneal', ...(lora ? ['lora'] : [config.finetuning_type]), config.stage],
  })
  const what = lora ? 'A LoRA adapter for' : 'A fine-tuned version of'
  const learned = config.stage === 'pt' ? 'the raw text of' : 'the answers in'
  return `---
${frontMatter}---

# ${base}, trained on ${config.dataset.join(', ')}

${what} \`${base}\`, made with Anneal from ${learned} ${list(config.dataset)}.

## Results

| Metric | Value |
| --- | --- |
${results(done)}

${losses(done)}## Training

| Setting | Value |
| --- | --- |
${settings(config, done)}
`
}

function results({ results: { train, eval: evaluation } }: Extract<TrainEvent, { type: 'done' }>): string {
  const shown: [string, number | undefined][] = [
    ['Training loss, mean over the run', train.train_loss],
    ['Evaluation loss', evaluation?.eval_loss],
    ['Evaluation perplexity', evaluation?.eval_perplexity],
  ]
  return shown
    .flatMap(([name, value]) => (value === undefined ? [] : [row(name, value.toFixed(4))]))
    .join('\n')
}

/** The evaluations on the way, when there were any. */
function losses({ history }: Extract<TrainEvent, { type: 'done' }>): string {
  const evaluations = history.entries.filter((entry) => entry.eval_loss !== undefined)
  if (evaluations.length < 2) return ''
  const rows = evaluations.map((entry) =>
    row(String(entry.step), entry.epoch.toFixed(2), entry.eval_loss!.toFixed(4)),
  )
  return `| Step | Epoch | Evaluation loss |\n| --- | --- | --- |\n${rows.join('\n')}\n\n`
}

function settings(config: TrainConfig, done: Extract<TrainEvent, { type: 'done' }>): string {
  const batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
  const lora = config.finetuning_type === 'lora'
  const target = Array.isArray(config.lora_target) ? config.lora_target.join(', ') : config.lora_target
  const rows: [string, string | number][] = [
    [
      'Method',
      lora
        ? `${config.use_dora ? 'DoRA' : 'LoRA'}, rank ${config.lora_rank}, alpha ${config.lora_alpha}, target ${target}`
        : config.finetuning_type,
    ],
    ['Learning rate', `${config.learning_rate}, ${config.lr_scheduler_type}`],
    ['Optimizer', optimizer(config)],
    ['Weight decay', config.weight_decay],
    ['Examples per step', batch],
    ['Longest example, in tokens', config.cutoff_len],
    ['Steps', done.step],
    ['Epochs', done.epoch.toFixed(2)],
    ['Seed', config.seed],
  ]
  return rows.map(([name, value]) => row(name, String(value))).join('\n')
}

function row(...cells: string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function list(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(', ')
}

function optimizer(config: TrainConfig): string {
  const { adam_beta1, adam_beta2, adam_epsilon, optim, optim_args } = config
  const adamw = `AdamW, betas ${adam_beta1} and ${adam_beta2}, epsilon ${adam_epsilon}`
  if (config.use_galore) return `GaLore, rank ${config.galore_rank}, over ${adamw}`
  if (config.use_badam)
    return `BAdam, ${config.badam_switch_mode} every ${config.badam_switch_interval} steps, over ${adamw}`
  if (config.use_muon) return `Muon, and for the rest ${adamw}`
  if (optim.startsWith('adamw')) return adamw
  return optim_args === undefined ? optim : `${optim}, ${optim_args}`
}
