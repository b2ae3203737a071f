import { t } from '../i18n.ts'
import { Field, NumberField, SelectField } from '../parts/form.tsx'

/** What stands in the form: fields by LLaMA-Factory's names, and further ones as YAML. */
export interface Form {
  fields: Record<string, string>
  more: string
}

/** Folded fields: left out of the request while they are empty. */
const ADVANCED: readonly { name: string; options?: readonly string[] }[] = [
  { name: 'gradient_accumulation_steps' },
  { name: 'max_steps' },
  { name: 'lora_alpha' },
  { name: 'lora_dropout' },
  { name: 'lora_target' },
  { name: 'lr_scheduler_type', options: ['', 'linear', 'cosine', 'constant', 'constant_with_warmup'] },
  { name: 'warmup_ratio' },
  { name: 'weight_decay' },
  { name: 'max_grad_norm' },
  { name: 'val_size' },
  { name: 'eval_steps' },
  { name: 'logging_steps' },
  { name: 'save_steps' },
  { name: 'save_total_limit' },
  { name: 'max_samples' },
  { name: 'seed' },
  { name: 'packing', options: ['', 'true', 'false'] },
  { name: 'train_on_prompt', options: ['', 'true', 'false'] },
  { name: 'mask_history', options: ['', 'true', 'false'] },
  { name: 'use_rslora', options: ['', 'true', 'false'] },
  { name: 'use_dora', options: ['', 'true', 'false'] },
  { name: 'quantization_bit', options: ['', '4', '8'] },
  { name: 'template' },
  { name: 'output_dir' },
]

/** Sets a field of the form to what is typed. */
type Setter = (name: string) => (value: string) => void

/** The fields that most runs set. */
export function MainFields({ fields, set }: { fields: Form['fields']; set: Setter }) {
  return (
    <div class="pair">
      <SelectField
        label={t('stage')}
        value={fields.stage ?? 'sft'}
        options={['sft', 'pt', 'dpo', 'kto', 'rm']}
        onChange={set('stage')}
      />
      <SelectField
        label={t('method')}
        value={fields.finetuning_type ?? 'lora'}
        options={['lora', 'full', 'freeze']}
        onChange={set('finetuning_type')}
      />
      <NumberField
        label={t('epochs')}
        value={fields.num_train_epochs ?? ''}
        onChange={set('num_train_epochs')}
      />
      <NumberField
        label={t('learningRate')}
        value={fields.learning_rate ?? ''}
        onChange={set('learning_rate')}
      />
      <NumberField
        label={t('batchSize')}
        value={fields.per_device_train_batch_size ?? ''}
        onChange={set('per_device_train_batch_size')}
      />
      <NumberField label={t('cutoff')} value={fields.cutoff_len ?? ''} onChange={set('cutoff_len')} />
      {fields.finetuning_type === 'lora' && (
        <NumberField label={t('rank')} value={fields.lora_rank ?? ''} onChange={set('lora_rank')} />
      )}
    </div>
  )
}

/** Folded: the fields of ADVANCED, and a place for any other. */
export function AdvancedFields(props: { form: Form; set: Setter; onMore(more: string): void }) {
  const { form, set, onMore } = props
  const { fields, more } = form
  return (
    <details>
      <summary>{t('advanced')}</summary>
      <div class="pair">
        {ADVANCED.map(({ name, options }) =>
          options ? (
            <SelectField
              key={name}
              label={name}
              value={fields[name] ?? ''}
              options={options}
              onChange={set(name)}
            />
          ) : (
            <Field key={name} label={name}>
              {(id) => (
                <input id={id} value={fields[name] ?? ''} onInput={(e) => set(name)(e.currentTarget.value)} />
              )}
            </Field>
          ),
        )}
      </div>
      <Field label={t('moreFields')} hint={t('moreHint')}>
        {(id) => (
          <textarea
            id={id}
            rows={3}
            spellcheck={false}
            value={more}
            onInput={(e) => onMore(e.currentTarget.value)}
          />
        )}
      </Field>
    </details>
  )
}
