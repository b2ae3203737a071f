import { CUDA_LIBRARIES, type CudaFacts } from './cuda-facts.ts'
import { KNOWN_PROVIDERS, PROVIDER_FILES } from './install/known-providers.ts'

/** Something that keeps CUDA from working, or would keep some of it, and what to do. */
export interface CudaProblem {
  code:
    | 'platform'
    | 'not_installed'
    | 'incomplete'
    | 'provider_version'
    | 'no_driver'
    | 'no_gpu'
    | 'driver_too_old'
    | 'libraries_missing'
    | 'cudnn_missing'
  /** One sentence: what is the matter. */
  text: string
  /** One sentence: what to do. */
  remedy: string
  /** Whether CUDA works all the same. */
  isOptional: boolean
}

/** What follows from the facts; the first is to be dealt with first. None: only a self-test can say more. */
export function cudaProblems(facts: CudaFacts): CudaProblem[] {
  if (facts.binding.platform !== 'linux/x64') return [wrongPlatform(facts)]
  return [...providerProblems(facts), ...driverProblems(facts), ...libraryProblems(facts)]
}

function wrongPlatform({ binding }: CudaFacts): CudaProblem {
  return problem(
    'platform',
    `CUDA runs on linux/x64 only; this is ${binding.platform}.`,
    'Use device webgpu, which needs no installation.',
  )
}

function providerProblems({ provider, binding }: CudaFacts): CudaProblem[] {
  const { present, versions, manifest } = provider
  if (present.length === 0) {
    return [
      problem(
        'not_installed',
        `The CUDA library of onnxruntime ${binding.version} is not installed.`,
        'Run `anneal device install cuda`.',
      ),
    ]
  }
  if (present.length < PROVIDER_FILES.length) {
    const missing = PROVIDER_FILES.filter((name) => !present.includes(name))
    return [
      problem('incomplete', `${missing.join(' and ')} is missing beside the binding.`, reinstall(manifest)),
    ]
  }
  if (versions.includes(binding.version)) return []
  const found = versions.join(', ') || 'an unknown version'
  return [
    problem(
      'provider_version',
      `The CUDA library is of onnxruntime ${found}, the installed onnxruntime-node is ${binding.version}.`,
      reinstall(manifest),
    ),
  ]
}

/** Files that something else has put there are not replaced without a word. */
function reinstall(manifest: unknown): string {
  if (manifest) return 'Run `anneal device install cuda`.'
  return `Remove ${PROVIDER_FILES.join(' and ')} beside the binding, then run \`anneal device install cuda\`.`
}

function driverProblems({ gpus, libraries, binding }: CudaFacts): CudaProblem[] {
  const known = KNOWN_PROVIDERS[binding.version]
  const [driver] = gpus ?? []
  if (driver && known && compareVersions(driver.driver, known.minimumDriver) < 0) {
    return [
      problem(
        'driver_too_old',
        `The NVIDIA driver is ${driver.driver}; CUDA ${known.cuda} needs ${known.minimumDriver} or later.`,
        'Install a newer driver and restart the machine.',
      ),
    ]
  }
  if (libraries[CUDA_LIBRARIES.driver] !== true) {
    const needed = known ? `${known.minimumDriver} or later` : 'of the version that CUDA needs'
    const inContainer = 'in a container, start it with its GPUs (--gpus all)'
    return [
      problem(
        'no_driver',
        `${CUDA_LIBRARIES.driver} is not found, so there is no NVIDIA driver.`,
        `Install the driver, ${needed}; ${inContainer}.`,
      ),
    ]
  }
  if (gpus?.length !== 0) return []
  return [
    problem(
      'no_gpu',
      'The driver reports no GPU.',
      'Look at nvidia-smi and at CUDA_VISIBLE_DEVICES; a GPU that has fallen off the bus needs a restart.',
    ),
  ]
}

function libraryProblems({ libraries }: CudaFacts): CudaProblem[] {
  const where = 'and put their folder into LD_LIBRARY_PATH before Anneal starts'
  const missing = CUDA_LIBRARIES.needed.filter((name) => !libraries[name])
  const found: CudaProblem[] = []
  if (missing.length > 0) {
    found.push(
      problem(
        'libraries_missing',
        `The loader does not find ${missing.join(', ')} of CUDA 13.`,
        `Install CUDA 13's runtime, cuBLAS and cuRAND (NVIDIA's packages, or nvidia-cuda-runtime, nvidia-cublas and nvidia-curand from PyPI) ${where}.`,
      ),
    )
  }
  if (!libraries[CUDA_LIBRARIES.cudnn]) {
    found.push({
      ...problem(
        'cudnn_missing',
        `${CUDA_LIBRARIES.cudnn} is not found; onnxruntime opens it only for operations that need it, such as convolutions.`,
        `If a run asks for it, install cuDNN 9 for CUDA 13 (nvidia-cudnn-cu13 on PyPI) ${where}.`,
      ),
      isOptional: true,
    })
  }
  return found
}

function problem(code: CudaProblem['code'], text: string, remedy: string): CudaProblem {
  return { code, text, remedy, isOptional: false }
}

/** Compares dotted numbers: negative when `a` is older. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split('.').map(Number))
  for (let i = 0; i < Math.max(left!.length, right!.length); i++) {
    const difference = (left![i] ?? 0) - (right![i] ?? 0)
    if (difference !== 0 && !Number.isNaN(difference)) return difference
  }
  return 0
}
