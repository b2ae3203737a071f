import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { EngineError } from '../../../engine/errors.ts'
import {
  ignoredFields,
  parseTrainConfig,
  toCommand,
  toYaml,
  trainConfigSchema,
} from '../../../engine/train/config.ts'

const MINIMAL = { model_name_or_path: 'tiny', dataset: 'identity' }

function refusal(fields: Record<string, unknown>): EngineError {
  try {
    parseTrainConfig({ ...MINIMAL, ...fields })
  } catch (error) {
    if (error instanceof EngineError) return error
    throw error
  }
  throw new Error('it was accepted')
}

describe('a training configuration', () => {
  it('takes a device by its name, and transformers’ use_cpu', () => {
    expect(parseTrainConfig(MINIMAL).device).toBeUndefined()
    expect(parseTrainConfig({ ...MINIMAL, device: 'cuda:1' }).device).toBe('cuda:1')
    expect(parseTrainConfig({ ...MINIMAL, use_cpu: 'true' })).toMatchObject({
      device: 'cpu',
      use_cpu: undefined,
    })
  })

  it('has the defaults of LLaMA-Factory', () => {
    expect(parseTrainConfig(MINIMAL)).toMatchObject({
      stage: 'sft',
      finetuning_type: 'lora',
      dataset: ['identity'],
      cutoff_len: 2048,
      packing: false,
      lora_rank: 8,
      lora_alpha: 16,
      lora_dropout: 0,
      lora_target: 'all',
      learning_rate: 5e-5,
      num_train_epochs: 3,
      max_steps: -1,
      per_device_train_batch_size: 8,
      gradient_accumulation_steps: 1,
      lr_scheduler_type: 'linear',
      max_grad_norm: 1,
      seed: 42,
      logging_steps: 500,
      save_steps: 500,
      eval_strategy: 'no',
      do_eval: false,
    })
  })

  it('takes twice the rank as alpha unless it is given', () => {
    expect(parseTrainConfig({ ...MINIMAL, lora_rank: 3 }).lora_alpha).toBe(6)
    expect(parseTrainConfig({ ...MINIMAL, lora_rank: 3, lora_alpha: 1 }).lora_alpha).toBe(1)
  })

  it('packs in stage pt unless told otherwise', () => {
    expect(parseTrainConfig({ ...MINIMAL, stage: 'pt' }).packing).toBe(true)
    expect(parseTrainConfig({ ...MINIMAL, stage: 'pt', packing: false }).packing).toBe(false)
  })

  it('evaluates while training when eval_steps is given, and at the end when examples are held out', () => {
    expect(parseTrainConfig({ ...MINIMAL, val_size: 0.1 })).toMatchObject({
      eval_strategy: 'no',
      do_eval: true,
    })
    const eval_steps = { ...MINIMAL, val_size: 0.1, eval_steps: 5 }
    expect(parseTrainConfig(eval_steps)).toMatchObject({ eval_strategy: 'steps', do_eval: true })
  })

  it('reads text as YAML 1.1 and the command line have it', () => {
    const fields = {
      learning_rate: '1e-4',
      bf16: 'True',
      dataset: 'a, b',
      lora_target: 'q_proj,v_proj',
      seed: ' 7 ',
    }
    expect(parseTrainConfig({ ...MINIMAL, ...fields, resume_from_checkpoint: 'true' })).toMatchObject({
      learning_rate: 1e-4,
      bf16: true,
      dataset: ['a', 'b'],
      lora_target: ['q_proj', 'v_proj'],
      seed: 7,
      resume_from_checkpoint: true,
    })
    expect(parseTrainConfig({ ...MINIMAL, lora_target: ['all'] }).lora_target).toBe('all')
  })

  it('reads expressions, numbered lists and JSON of the command line, and writes them as it reads them', () => {
    const fields = {
      lora_target: 'model\\.layers\\.(0|1)\\..*_proj',
      lr_scheduler_type: 'cosine_with_min_lr',
      lr_scheduler_kwargs: '{"min_lr": 1e-6}',
      rank_pattern: '{"q_proj": 4}',
    }
    const config = parseTrainConfig({ ...MINIMAL, ...fields })
    expect(config.lora_target).toBe(fields.lora_target)
    expect(config.lr_scheduler_kwargs).toEqual({ min_lr: 1e-6 })
    expect(parseTrainConfig(parse(toYaml(config)))).toEqual(config)
    const layers = parseTrainConfig({ ...MINIMAL, layers_to_transform: '0, 2', lora_target: 'q_proj' })
    expect(layers.layers_to_transform).toEqual([0, 2])
    expect(parseTrainConfig(parse(toYaml(layers)))).toEqual(layers)
    expect(toCommand(config)).toContain('rank_pattern=')
  })

  it('takes `model` for `model_name_or_path`, but not two models', () => {
    expect(parseTrainConfig({ model: 'tiny', dataset: 'd' }).model_name_or_path).toBe('tiny')
    expect(refusal({ model: 'other' })).toMatchObject({ kind: 'invalid', param: 'model' })
  })

  it('understands what example files of LLaMA-Factory hold that changes nothing here', () => {
    const example = {
      ...MINIMAL,
      trust_remote_code: true,
      do_train: true,
      template: 'qwen3_nothink',
      overwrite_cache: true,
      preprocessing_num_workers: 16,
      dataloader_num_workers: 4,
      report_to: 'none',
      ddp_timeout: 180000000,
      resume_from_checkpoint: null,
      quantization_bit: null,
      use_dora: false,
      bf16: true,
      deepspeed: null,
    }
    expect(parseTrainConfig(example).bf16).toBe(true)
    const ignored = [
      'trust_remote_code',
      'overwrite_cache',
      'preprocessing_num_workers',
      'dataloader_num_workers',
    ]
    expect(ignoredFields(example)).toEqual([...ignored, 'ddp_timeout'])
  })
})

describe('stages and evaluations', () => {
  it.each([
    [{ stage: 'dpo', packing: true }, 'packing'],
    [{ stage: 'dpo', compute_accuracy: true }, 'compute_accuracy'],
    [{ stage: 'rm', train_on_prompt: true }, 'train_on_prompt'],
    [{ stage: 'kto', mask_history: true }, 'mask_history'],
    [{ stage: 'dpo', pref_loss: 'ipo', dpo_label_smoothing: 0.1 }, 'dpo_label_smoothing'],
    [{ stage: 'dpo', pref_loss: 'kto_pair' }, 'pref_loss'],
    [{ stage: 'dpo', pref_bco_weight: 0.5 }, 'pref_bco_weight'],
    [{ load_best_model_at_end: true, val_size: 1 }, 'load_best_model_at_end'],
    [{ early_stopping_steps: 3, val_size: 1 }, 'early_stopping_steps'],
    [{ load_best_model_at_end: true, val_size: 1, eval_steps: 1, save_only_model: true }, 'save_only_model'],
    [{ metric_for_best_model: 'accuracies' }, 'metric_for_best_model'],
    [{ eval_on_each_dataset: true, val_size: 1 }, 'eval_on_each_dataset'],
  ])('%j is refused by name', (fields, param) => {
    expect(refusal(fields)).toMatchObject({ param })
  })

  it('know the metrics of their stage', () => {
    const fields = {
      model: 'm',
      dataset: 'd',
      eval_dataset: 'a,b',
      eval_steps: 1,
      eval_on_each_dataset: true,
    }
    for (const metric of ['rewards/margins', 'eval_loss', 'b_loss']) {
      const config = parseTrainConfig({ ...fields, stage: 'dpo', metric_for_best_model: metric })
      expect(config.metric_for_best_model).toBe(metric)
    }
  })
})

describe('a wrong configuration', () => {
  it.each([
    [{ learning_rat: 1 }, /Unknown field `learning_rat`. Did you mean `learning_rate`\?/],
    [{ 'lora-rank': 8 }, /Did you mean `lora_rank`/],
    [{ lora_rank: 0 }, /`lora_rank`: Too small.*>=1; got 0/],
    [{ lora_rank: 1.5 }, /`lora_rank`: expected int.*got 1.5/],
    [{ lora_dropout: 1 }, /`lora_dropout`.*got 1/],
    [{ learning_rate: 'fast' }, /`learning_rate`.*got "fast"/],
    [{ learning_rate: Number.NaN }, /`learning_rate`/],
    [{ dataset: '' }, /`dataset`/],
    [{ stage: 'sfft' }, /`stage`.*"sft"\|"pt".*got "sfft"/],
    [{ val_size: 1.5 }, /`val_size`: must be a fraction below 1 or a whole number; got 1.5/],
    [{ val_size: 0.1, eval_dataset: 'x' }, /Cannot specify `val_size` if `eval_dataset` is not None\./],
    [{ do_eval: true }, /Please make sure eval_dataset be provided or val_size >1e-6\./],
    [
      { mask_history: true, train_on_prompt: true },
      /`mask_history` is incompatible with `train_on_prompt`\./,
    ],
    [{ finetuning_type: 'full', use_rslora: true }, /`use_rslora` is only valid for LoRA training\./],
    [
      { finetuning_type: 'full', quantization_bit: 4 },
      /Quantization is only compatible with the LoRA method\./,
    ],
    [{ quantization_bit: 2 }, /`quantization_bit`: must be 4 or 8.*got 2/],
    [{ gradient_checkpointing: true, disable_gradient_checkpointing: true }, /say the opposite/],
    [{ device: 'gpu' }, /`device`: must be auto, cpu, webgpu, cuda or, for one of several GPUs, cuda:N/],
    [{ device: 'webgpu:1' }, /`device`: must be auto/],
    [{ use_cpu: true, device: 'cuda:1' }, /`use_cpu` and `device` name two devices/],
  ])('%j is refused with the value and what is right', (fields, message) => {
    const error = refusal(fields)
    expect(error.kind).toBe('invalid')
    expect(error.message).toMatch(message)
  })

  it.each([
    [{ mixture_of_depths: 'convert' }, 'mixture_of_depths'],
    [{ quantization_method: 'hqq' }, 'quantization_method'],
    [{ stage: 'ppo' }, 'stage'],
    [{ finetuning_type: 'oft' }, 'finetuning_type'],
    [{ push_to_hub: true }, 'push_to_hub'],
    [{ optim: 'adamw_8bit' }, 'optim'],
    [{ lr_scheduler_type: 'reduce_lr_on_plateau' }, 'lr_scheduler_type'],
    [{ report_to: 'wandb' }, 'report_to'],
  ])('%j is known, but not supported here', (fields, param) => {
    const error = refusal(fields)
    expect(error).toMatchObject({ kind: 'unsupported', code: 'unsupported_option', param })
    expect(error.message).toContain(`\`${param}\` = ${JSON.stringify(Object.values(fields)[0])}`)
  })

  it('do_predict is refused with what does the same here', () => {
    expect(refusal({ do_predict: true }).message).toMatch(/anneal eval MODEL.*predict_with_generate/)
  })

  it.each<[Record<string, unknown>, string, RegExp]>([
    [{ finetuning_type: 'full', use_dora: true }, 'use_dora', /only valid for LoRA training/],
    [{ finetuning_type: 'full', loraplus_lr_ratio: 16 }, 'loraplus_lr_ratio', /only valid for LoRA training/],
    [
      { finetuning_type: 'full', use_llama_pro: true },
      'use_llama_pro',
      /only valid for Freeze or LoRA training/,
    ],
    [{ use_galore: true }, 'use_galore', /Cannot use LoRA with GaLore, APOLLO or BAdam together/],
    [{ use_badam: true }, 'use_badam', /Cannot use LoRA with GaLore, APOLLO or BAdam together/],
    [
      { finetuning_type: 'full', use_galore: true, use_muon: true },
      'use_galore',
      /`use_galore` and `use_muon`/,
    ],
    [{ use_muon: true, optim: 'sgd' }, 'use_muon', /leave `optim` out/],
    [{ optim: 'sgd', optim_args: 'speed=1' }, 'optim_args', /speed=1.*momentum=VALUE/],
    [{ optim: 'sgd', optim_args: 'nesterov=true' }, 'optim_args', /nesterov needs a momentum/],
    [{ lr_scheduler_kwargs: { power: 2 } }, 'lr_scheduler_kwargs', /linear takes none, not power/],
    [{ lr_scheduler_type: 'cosine_with_min_lr' }, 'lr_scheduler_kwargs', /needs min_lr or min_lr_rate/],
    [{ freeze_trainable_layers: 0 }, 'freeze_trainable_layers', /must not be 0/],
    [{ lora_target: '.*_proj', layers_to_transform: [1] }, 'layers_to_transform', /put the layers into it/],
  ])('%j is refused by name', (fields, param, message) => {
    const error = refusal(fields)
    expect(error).toMatchObject({ kind: 'invalid', param })
    expect(error.message).toMatch(message)
  })

  it('may even contain itself', () => {
    const loop: unknown[] = []
    loop.push(loop)
    expect(refusal({ use_dora: loop, lora_rank: loop }).message).toContain('Circular')
  })

  it('is told every problem at once', () => {
    const { message, param } = refusal({ lora_rank: -1, mixture_of_depths: 'convert', sede: 1 })
    expect(message).toMatch(/^3 problems/)
    for (const name of ['lora_rank', 'mixture_of_depths', 'sede']) expect(message).toContain(`\`${name}\``)
    expect(param).toBe('mixture_of_depths')
  })

  it('never gets anything but an EngineError, whatever it holds', () => {
    const field = fc.oneof(fc.constantFrom(...Object.keys(trainConfigSchema.shape)), fc.string())
    const value = fc.oneof(
      fc.anything({ withBigInt: true, withNullPrototype: true, withDate: true }),
      fc.string(),
      fc.double(),
      fc.integer(),
    )
    fc.assert(
      fc.property(fc.dictionary(field, value), fc.boolean(), (fields, complete) => {
        try {
          const config = parseTrainConfig(complete ? { ...MINIMAL, ...fields } : fields)
          expect(config.lora_alpha).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toBeInstanceOf(EngineError)
          expect(['invalid', 'unsupported']).toContain((error as EngineError).kind)
        }
      }),
      { numRuns: 500, seed: 1 },
    )
  })
})

describe('writing a configuration', () => {
  const given = {
    ...MINIMAL,
    dataset: 'a,b',
    learning_rate: 1e-7,
    lora_rank: 4,
    stage: 'pt',
    packing: false,
    val_size: 0.2,
    eval_steps: 10,
    output_dir: "it's here",
  }

  it('as YAML and back gives the same one, with numbers that YAML 1.1 reads as numbers', () => {
    const config = parseTrainConfig(given)
    expect(toYaml(config)).toContain('learning_rate: 1.0e-7\n')
    expect(parseTrainConfig(parse(toYaml(config)))).toEqual(config)
  })

  it('as YAML means the same to readers of YAML 1.1: no word becomes a boolean, no nested number a text', () => {
    const nested = { lr_scheduler_type: 'cosine_with_min_lr', lr_scheduler_kwargs: { min_lr: 1e-7 } }
    const config = parseTrainConfig({ ...MINIMAL, dataset: 'on', output_dir: 'no', ...nested })
    expect(config.eval_strategy).toBe('no')
    const text = toYaml(config)
    expect(text).toContain('min_lr: 1.0e-7\n')
    expect(parseTrainConfig(parse(text, { version: '1.1' }))).toEqual(config)
  })

  it("reads YAML 1.1's words for booleans, which newer YAML leaves as text", () => {
    const words = { packing: 'yes', do_eval: 'off', train_on_prompt: 'On', plot_loss: 'no' }
    expect(parseTrainConfig({ ...MINIMAL, ...words, eval_strategy: 'no' })).toMatchObject({
      packing: true,
      do_eval: false,
      train_on_prompt: true,
      plot_loss: false,
      eval_strategy: 'no',
    })
  })

  it('as a command names only what differs from the defaults, quoted for the shell', () => {
    const config = parseTrainConfig(given)
    expect(toCommand(config)).toBe(
      'anneal train model_name_or_path=tiny stage=pt dataset=a,b packing=false val_size=0.2 lora_rank=4 ' +
        "learning_rate=1e-7 eval_steps=10 'output_dir=it'\\''s here'",
    )
  })
})
