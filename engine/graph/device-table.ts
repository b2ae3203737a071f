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
 * aren't int64, with ' in blocks' where a scale holds for a part of a row.
 */
export function kernelType(node: Node): string {
  const type = node.inputs[0]!.dtype
  if (node.op === 'Cast') return `${type} to ${node.outputs[0]!.dtype}`
  if ('block_size' in node.attributes && node.op === 'DequantizeLinear') {
    return node.attributes.block_size > 0 ? `${type} in blocks` : type
  }
  return node.inputs[1]?.dtype === 'int32' ? `${type} by int32` : type
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
  DequantizeLinear: ['uint8', 'uint8 in blocks', 'uint4 in blocks'],
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
 * onnxruntime 1.30's CUDA provider, as tests/engine/graph/device-table.test.ts finds it: the runtime assigns every case of
 * every operation to it or refuses, which needs no GPU. What its kernels compute has not been compared on one.
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
    'float32 to bfloat16',
    'bool to float32',
    'bool to int64',
    'int64 to float32',
    'uint8 to int32',
    'float32 to int32',
  ],
  // bytes are widened by rows, not by blocks within them
  DequantizeLinear: ['uint8', 'uint4 in blocks'],
  QuantizeLinear: FLOAT,
  Reshape: [...NUMBERS, 'uint8'],
  // int64 has a kernel, but lists of sizes stay on the CPU, where the runtime has the sizes
  Concat: ['float32', 'uint8', 'bfloat16'],
  Range: ['int64'],
  Equal: NUMBERS,
  GreaterOrEqual: NUMBERS,
  TopK: NUMBERS,
  Shape: [...NUMBERS, 'bfloat16', 'float16'],
  ConstantOfShape: ['int64'],
  Gather: ['float32', 'float32 by int32', 'int64', 'uint8', 'bfloat16', 'float16'],
  SoftmaxCrossEntropyLoss: FLOAT,
  Split: NUMBERS,
  ReduceSum: NUMBERS,
  // it asks for cuDNN, which nothing else does; no step of training or decoding has it
  ReduceMax: FLOAT,
  // sums of bfloat16 products are float32 (CUBLAS_COMPUTE_32F), also where they are of float16
  Gemm: [...FLOAT, 'bfloat16'],
  MatMul: [...FLOAT, 'bfloat16'],
  FusedMatMul: [...FLOAT, 'bfloat16'],
}

const kernels: Readonly<Record<Accelerator, Kernels>> = { webgpu, cuda }

/** Whether the provider has a kernel for the node. */
export function hasKernel(device: Accelerator, node: Node): boolean {
  return kernels[device][node.op].includes(kernelType(node))
}

/** Whether products of bfloat16 have a kernel that adds up in float32. */
export function multipliesBfloat16(device: Accelerator): boolean {
  return kernels[device].Gemm.includes('bfloat16')
}
