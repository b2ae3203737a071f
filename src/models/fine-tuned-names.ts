const MODEL = /^ft:[^:]{1,150}:[^:]{0,64}:[^:]{0,64}:([0-9a-f]{12})(:ckpt-step-\d{1,12})?$/

/** The only organisation that there is on one's own machine. */
export const ORGANIZATION = 'anneal'

/** ft:BASE:ORGANIZATION:SUFFIX:DIGITS, and :ckpt-step-N behind it for a checkpoint. */
export function fineTunedModel(
  base: string,
  suffix: string | null | undefined,
  runId: string,
  step?: number,
): string {
  const name = `ft:${base}:${ORGANIZATION}:${suffix ?? ''}:${runId.replace(/^run-/, '')}`
  return step === undefined ? name : `${name}:ckpt-step-${step}`
}

/** The model's own id that an ft: name stands for; undefined for any other name. */
export function modelIdOf(name: string): string | undefined {
  const match = MODEL.exec(name)
  return match ? `run-${match[1]}${match[2] ?? ''}` : undefined
}
