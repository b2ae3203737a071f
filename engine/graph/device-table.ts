import type { Node } from './graph.ts'
import type { Op } from './ops.ts'

/** Execution providers that lack some of what the CPU has. */
export type Accelerator = 'webgpu' | 'cuda'

/** Element types, as kernelType names them, for which a provider has a kernel of each operation. */
type Kernels = { readonly [K in Op]: readonly string[] }

const FLOAT = ['float32'] as const
const NONE = [] as const

/**
 * What a node's kernel is chosen by: the type of its first input; 'a to b' of a Cast; with ' by int32' where indices
 * aren't int64.
 */
export function kernelType({ op, inputs, outputs }: Node): string {
  const type = inputs[0]!.dtype
  if (op === 'Cast') return `${type} to ${outputs[0]!.dtype}`
  return inputs[1]?.dtype === 'int32' ? `${type} by int32` : type
}

/**
 * onnxruntime 1.30's WebGPU provider, as tests/engine/graph/device-table.test.ts finds it: every case of every operation
 * is run there and compared with the CPU's numbers. The CPU has all of them.
 */
const webgpu: Kernels = {
  Add: FLOAT,
  Sub: FLOAT,
  Mul: FLOAT,
  Div: FLOAT,
  Neg: FLOAT,
  Exp: FLOAT,
  Log: FLOAT,
  Relu: FLOAT,
  Sign: NONE,
  Sqrt: FLOAT,
  Identity: FLOAT,
  Sigmoid: FLOAT,
  Softplus: FLOAT,
  Tanh: FLOAT,
  Gelu: FLOAT,
  QuickGelu: FLOAT,
  Softmax: FLOAT,
  LogSoftmax: NONE,
  Cast: [
    'bool to float32',
    'bool to int64',
    'uint8 to int32',
    'float32 to int32',
    // where the adapter has 'shader-f16', which the self-test tells (DeviceTraits); others refuse the run
    'float32 to float16',
    'float16 to float32',
  ],
  DequantizeLinear: ['uint8', 'uint4'],
  QuantizeLinear: NONE,
  Reshape: FLOAT,
  Expand: FLOAT,
  Transpose: FLOAT,
  Concat: FLOAT,
  Range: NONE,
  Equal: FLOAT,
  GreaterOrEqual: FLOAT,
  TopK: FLOAT,
  ArgMax: FLOAT,
  Shape: ['float32', 'int64'],
  ConstantOfShape: NONE,
  Gather: ['float32', 'float32 by int32'],
  GatherElements: FLOAT,
  SoftmaxCrossEntropyLoss: NONE,
  ScatterElements: FLOAT,
  ScatterND: FLOAT,
  Slice: FLOAT,
  Split: FLOAT,
  ReduceSum: FLOAT,
  ReduceMean: FLOAT,
  ReduceMax: FLOAT,
  Gemm: FLOAT,
  MatMul: FLOAT,
  FusedMatMul: NONE,
  MatMulInteger: NONE,
  MatMulNBits: FLOAT,
  SimplifiedLayerNormalization: FLOAT,
  SkipSimplifiedLayerNormalization: FLOAT,
  RotaryEmbedding: FLOAT,
}

const NUMBERS = ['float32', 'int64'] as const

/**
 * onnxruntime's CUDA provider, as its published list of kernels has it (docs/OperatorKernels.md of the project, read in
 * November 2026). Nothing of it has been run here.
 */
const cuda: Kernels = {
  ...webgpu,
  Add: NUMBERS,
  Sub: NUMBERS,
  Mul: NUMBERS,
  Div: NUMBERS,
  Sign: FLOAT,
  LogSoftmax: FLOAT,
  Cast: [
    'bfloat16 to float32',
    'float16 to float32',
    'float32 to float16',
    'bool to float32',
    'bool to int64',
    'int64 to float32',
    'uint8 to int32',
    'float32 to int32',
  ],
  Reshape: NUMBERS,
  Concat: [...NUMBERS, 'uint8'],
  Range: ['int64'],
  Equal: NUMBERS,
  GreaterOrEqual: NUMBERS,
  TopK: NUMBERS,
  Shape: [...NUMBERS, 'bfloat16', 'float16'],
  ConstantOfShape: ['int64'],
  Gather: ['float32', 'float32 by int32', 'int64', 'bfloat16', 'float16'],
  Split: NUMBERS,
  ReduceSum: NUMBERS,
  FusedMatMul: FLOAT,
}

const kernels: Readonly<Record<Accelerator, Kernels>> = { webgpu, cuda }

/** Whether the provider has a kernel for the node. */
export function hasKernel(device: Accelerator, node: Node): boolean {
  return kernels[device][node.op].includes(kernelType(node))
}
