import { create, toBinary } from '@bufbuild/protobuf'
import type { Constant, ExternalWeight, Graph, Node } from '../graph/graph.ts'
import { opSpecs } from '../graph/ops.ts'
import type { Value } from '../graph/values.ts'
import type { DType } from '../tensor.ts'
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './generated/onnx_pb.js'

/** ONNX's TensorProto.DataType numbers. */
export const ELEMENT_TYPES: Record<DType, number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
  uint4: 21,
}
const IR_VERSION = 10n
const OPSETS = [
  { domain: '', version: 21n },
  { domain: 'com.microsoft', version: 1n },
]
/** Attributes that ONNX declares as float, whatever their value looks like. */
const FLOAT_ATTRIBUTES = new Set(['alpha', 'epsilon'])

type AttributeValue = number | string | readonly number[]

/** The graph as the bytes of an ONNX model; weights stay in their files and are named by offset. */
export function encodeModel(graph: Graph): Uint8Array {
  const model = create(ModelProtoSchema, {
    irVersion: IR_VERSION,
    producerName: 'anneal',
    opsetImport: OPSETS.map((opset) => create(OperatorSetIdProtoSchema, opset)),
    graph: create(GraphProtoSchema, {
      name: 'anneal',
      node: graph.nodes.map(encodeNode),
      input: graph.inputs.map(encodeValue),
      output: graph.outputs.map(encodeValue),
      initializer: [...graph.constants.map(encodeConstant), ...graph.weights.map(encodeWeight)],
    }),
  })
  return toBinary(ModelProtoSchema, model)
}

function encodeNode(node: Node, index: number): NodeProto {
  const spec = opSpecs[node.op]
  const internal = new Set<string>(spec.internal ?? [])
  return create(NodeProtoSchema, {
    name: `${node.outputs[0]?.name ?? node.op}#${index}`,
    opType: node.op,
    domain: spec.domain,
    input: node.inputs.map((value) => value?.name ?? ''),
    output: outputNames(node),
    attribute: Object.entries(node.attributes as Record<string, AttributeValue>)
      .filter(([name]) => !internal.has(name))
      .map(([name, value]) => encodeAttribute(name, value)),
  })
}

function outputNames({ op, outputs }: Node): string[] {
  const names = outputs.map(({ name }) => name)
  for (const place of opSpecs[op].leftOut ?? []) names.splice(place, 0, '')
  return names
}

function encodeAttribute(name: string, content: AttributeValue): AttributeProto {
  if (name === 'to') return intAttribute(name, ELEMENT_TYPES[content as DType])
  if (typeof content === 'string') {
    const bytes = new TextEncoder().encode(content)
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: bytes })
  }
  if (typeof content !== 'number') {
    return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: content.map(BigInt) })
  }
  if (FLOAT_ATTRIBUTES.has(name)) {
    return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: content })
  }
  return intAttribute(name, content)
}

function intAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) })
}

function encodeValue({ name, dtype, shape }: Value): ValueInfoProto {
  const dim = shape.map((size) =>
    typeof size === 'number'
      ? { value: { case: 'dimValue' as const, value: BigInt(size) } }
      : { value: { case: 'dimParam' as const, value: size } },
  )
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: 'tensorType', value: { elemType: ELEMENT_TYPES[dtype], shape: { dim } } } },
  })
}

function encodeConstant({ value, data }: Constant): TensorProto {
  return create(TensorProtoSchema, { ...tensorHeader(value), rawData: data })
}

function encodeWeight({ value, file, offset, byteLength }: ExternalWeight): TensorProto {
  const entries = { location: file, offset: String(offset), length: String(byteLength) }
  return create(TensorProtoSchema, {
    ...tensorHeader(value),
    dataLocation: TensorProto_DataLocation.EXTERNAL,
    externalData: Object.entries(entries).map(([key, text]) =>
      create(StringStringEntryProtoSchema, { key, value: text }),
    ),
  })
}

function tensorHeader({ name, dtype, shape }: Value) {
  return { name, dataType: ELEMENT_TYPES[dtype], dims: shape.map((dim) => BigInt(dim)) }
}
