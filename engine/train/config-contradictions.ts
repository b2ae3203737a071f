import type { z } from 'zod'
import { evaluationMetrics } from './best.ts'
import { methodContradictions } from './config-method-checks.ts'
import { invalid, type Problem, show } from './config-problem.ts'
import type { trainConfigSchema } from './config-schema.ts'

type Parsed = z.output<typeof trainConfigSchema>

/** Fields that are right by themselves and cannot stand together. */
export function contradictions(config: Parsed): Problem[] {
  const problems: Problem[] = []
  if (config.eval_dataset && config.val_size > 0) {
    problems.push(invalid('val_size', 'Cannot specify `val_size` if `eval_dataset` is not None.'))
  }
  const asked = config.do_eval || config.eval_strategy === 'steps' || config.eval_steps !== undefined
  if (asked && !hasEvaluation(config)) {
    const field = config.do_eval ? 'do_eval' : config.eval_strategy ? 'eval_strategy' : 'eval_steps'
    problems.push(invalid(field, 'Please make sure eval_dataset be provided or val_size >1e-6.'))
  }
  if (config.mask_history && config.train_on_prompt) {
    problems.push(invalid('mask_history', '`mask_history` is incompatible with `train_on_prompt`.'))
  }
  for (const { field, message } of methodContradictions(config)) problems.push(invalid(field, message))
  problems.push(...stageContradictions(config), ...bestContradictions(config))
  if (config.use_cpu && config.device !== undefined && config.device !== 'cpu') {
    problems.push(invalid('use_cpu', '`use_cpu` and `device` name two devices; give one.'))
  }
  if (config.bf16 && config.fp16) problems.push(invalid('fp16', '`bf16` and `fp16` exclude each other.'))
  if (config.pure_bf16 && (config.bf16 || config.fp16)) {
    problems.push(
      invalid('pure_bf16', '`pure_bf16` is without mixed precision: leave out `bf16` and `fp16`.'),
    )
  }
  problems.push(...memoryContradictions(config))
  return problems
}

/** What looking for the best evaluation needs. */
function bestContradictions(config: Parsed): Problem[] {
  const problems: Problem[] = []
  const asks = ['load_best_model_at_end', 'early_stopping_steps'] as const
  const whileTraining = config.eval_strategy === 'steps' || config.eval_steps !== undefined
  for (const field of asks) {
    if (!config[field] || whileTraining) continue
    problems.push(invalid(field, `\`${field}\` needs evaluations while training: set \`eval_steps\` too.`))
  }
  if (config.load_best_model_at_end && config.save_only_model) {
    problems.push(
      invalid(
        'save_only_model',
        '`load_best_model_at_end` needs whole checkpoints, without `save_only_model`.',
      ),
    )
  }
  const metric = config.metric_for_best_model?.replace(/^eval_/, '')
  const known = evaluationMetrics(config)
  if (metric !== undefined && !known.includes(metric)) {
    problems.push(
      invalid(
        'metric_for_best_model',
        `\`metric_for_best_model\` = ${show(metric)} is not measured here. Measured: ${known.join(', ')}.`,
      ),
    )
  }
  if (config.eval_on_each_dataset && !config.eval_dataset) {
    problems.push(invalid('eval_on_each_dataset', '`eval_on_each_dataset` needs `eval_dataset`.'))
  }
  return problems
}

function stageContradictions(config: Parsed): Problem[] {
  const { stage } = config
  const problems: Problem[] = []
  const onlySft = ['train_on_prompt', 'mask_history'] as const
  for (const field of onlySft) {
    if (config[field] && stage !== 'sft' && stage !== 'pt') {
      problems.push(invalid(field, '`train_on_prompt` or `mask_history` cannot be set as True except SFT.'))
    }
  }
  if (config.predict_with_generate && stage !== 'sft') {
    const message = '`predict_with_generate` cannot be set as True except SFT.'
    problems.push(invalid('predict_with_generate', message))
  } else if (config.predict_with_generate && !config.eval_dataset) {
    const message =
      '`predict_with_generate` needs `eval_dataset`: the questions that the trained model answers.'
    problems.push(invalid('predict_with_generate', message))
  }
  if (config.predict_with_generate && config.compute_accuracy) {
    const message = 'Cannot use `predict_with_generate` and `compute_accuracy` together.'
    problems.push(invalid('predict_with_generate', message))
  }
  if (config.packing && stage !== 'sft' && stage !== 'pt') {
    problems.push(invalid('packing', '`packing` is only valid for the stages sft and pt.'))
  }
  if (config.compute_accuracy && stage !== 'sft' && stage !== 'pt') {
    problems.push(invalid('compute_accuracy', '`compute_accuracy` is only valid for the stages sft and pt.'))
  }
  if (config.dpo_label_smoothing > 0 && config.pref_loss !== 'sigmoid') {
    problems.push(
      invalid('dpo_label_smoothing', '`dpo_label_smoothing` is only valid for sigmoid loss function.'),
    )
  }
  return problems
}

function memoryContradictions(config: Parsed): Problem[] {
  const problems: Problem[] = []
  if (config.quantization_bit !== undefined && config.finetuning_type !== 'lora') {
    problems.push(invalid('quantization_bit', 'Quantization is only compatible with the LoRA method.'))
  }
  if (config.neat_packing && config.stage !== 'sft') {
    problems.push(invalid('neat_packing', '`neat_packing` is only valid for stage sft.'))
  }
  if (config.neat_packing && config.shift_attn) {
    problems.push(
      invalid('neat_packing', '`neat_packing` and `shift_attn` need different masks; choose one.'),
    )
  }
  const { gradient_checkpointing: on, disable_gradient_checkpointing: off } = config
  if (on !== undefined && on === off) {
    const both = '`gradient_checkpointing` and `disable_gradient_checkpointing` say the opposite; give one.'
    problems.push(invalid('disable_gradient_checkpointing', both))
  }
  return problems
}

/** Whether there are rows to evaluate on. */
export function hasEvaluation(config: Parsed): boolean {
  return config.eval_dataset !== undefined || config.val_size > 1e-6
}
