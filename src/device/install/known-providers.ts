/** What is known of onnxruntime's CUDA library for one version of onnxruntime-node. */
export interface KnownProvider {
  /** The CUDA release that it was built with; its driver and libraries must be of this major version. */
  cuda: string
  /** The oldest Linux driver that runs programs of this CUDA major version. */
  minimumDriver: string
  /** SHA-256 of each file's accepted builds, and the package that the build came in. */
  sha256: Readonly<Record<ProviderFile, Readonly<Record<string, string>>>>
}

/** The files that stand beside the binding, in the order in which they are put there. */
export const PROVIDER_FILES = [
  'libonnxruntime_providers_shared.so',
  'libonnxruntime_providers_cuda.so',
] as const
export type ProviderFile = (typeof PROVIDER_FILES)[number]

/**
 * By version of onnxruntime-node. The digests stand in the RECORD file of PyPI's wheels onnxruntime_gpu-VERSION-…-
 * manylinux_2_28_x86_64.whl, and were compared with the unpacked files for cp312; `cuda` in the same wheels'
 * build_and_package_info.py. The driver is from table 2 of NVIDIA's CUDA release notes (CUDA 13.x: 580 or later).
 */
export const KNOWN_PROVIDERS: Readonly<Record<string, KnownProvider>> = {
  '1.30.0': {
    cuda: '13.0',
    minimumDriver: '580.65.06',
    sha256: {
      'libonnxruntime_providers_shared.so': {
        '086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d': 'PyPI, all wheels',
      },
      'libonnxruntime_providers_cuda.so': {
        '35da2e7ed0dd0d1aec5cdb16ce11a51d06c0c48cf62d1b1c9332946a4fae14fc': 'PyPI, cp312',
        '9d7587acb137b31bf84e4d32dc444b969bb601d098b01395effcacfe4341e364': 'PyPI, cp311',
        afd77f8d1e05544456476e244601ff08d444ff90921d6d73b2066c124f109bd2: 'PyPI, cp313',
        '0eb25d39348154516b638e792c9b30a5a91bbf7b72c2e09d3f68ada716ee6ce8': 'PyPI, cp314',
      },
    },
  },
}
