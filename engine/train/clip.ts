/** The 2-norm of all gradients taken as one vector, summed in double precision. */
export function globalNorm(gradients: readonly Float32Array[]): number {
  let sum = 0
  for (const gradient of gradients) {
    for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!
  }
  return Math.sqrt(sum)
}

/**
 * Scales the gradients in place so that their global norm is at most `maxNorm`, as torch.nn.utils.clip_grad_norm_ does:
 * by maxNorm / (norm + 1e-6) where that is below 1. With maxNorm 0 nothing is clipped.
 *
 * @returns the norm before clipping.
 */
export function clipGradients(gradients: readonly Float32Array[], maxNorm: number): number {
  const norm = globalNorm(gradients)
  const coefficient = maxNorm > 0 ? maxNorm / (norm + 1e-6) : 1
  if (coefficient < 1) {
    for (const gradient of gradients) {
      for (let i = 0; i < gradient.length; i++) gradient[i] = gradient[i]! * coefficient
    }
  }
  return norm
}
