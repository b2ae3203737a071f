/** A linear module of the model, as PEFT would find it by walking the modules. */
export interface LinearModule {
  readonly path: string
  readonly inFeatures: number
  readonly outFeatures: number
  /** One of many routed experts: 'all' leaves it out, as PEFT's all-linear does where experts are no linear modules. */
  readonly expert?: true
}
