import { PbfWriter } from 'pbf'
import type { Attribute, ElementType, Graph, Initializer, Node, Value } from './graph.ts'

// Field numbers are those of onnx/onnx.proto (IR version 10). Only what our graphs use is written.

const elementTypes: Record<ElementType, number> = { f32: 1, u8: 2, i8: 3, i32: 6, i64: 7, bool: 9, f16: 10 }
const irVersion = 10
const opset = 20

/** The graph as a ModelProto. Weights are named by file, offset and length; none is read. `version` of ONNX's operators. */
export function toOnnx(graph: Graph, version = opset): Uint8Array {
  const pbf = new PbfWriter()
  pbf.writeVarintField(1, irVersion)
  pbf.writeStringField(2, 'vignette')
  pbf.writeMessage(7, writeGraph, graph)
  pbf.writeMessage(8, writeOpset, { domain: '', version })
  pbf.writeMessage(8, writeOpset, { domain: 'com.microsoft', version: 1 })
  return pbf.finish()
}

function writeOpset({ domain, version }: { domain: string; version: number }, pbf: PbfWriter): void {
  pbf.writeStringField(1, domain)
  pbf.writeVarintField(2, version)
}

function writeGraph(graph: Graph, pbf: PbfWriter): void {
  for (const node of graph.nodes) pbf.writeMessage(1, writeNode, node)
  pbf.writeStringField(2, graph.name)
  for (const initializer of graph.initializers) pbf.writeMessage(5, writeTensor, initializer)
  // ONNX Runtime 1.30 compares the shape of every value with those of all earlier ones when it plans its memory. Where all
  // sizes are the run's own that finds nothing and takes its time: SD 1.5's UNet over bytes loads in 2.1 instead of 3.5
  // CPU seconds without them, in 2.3 instead of 5.0 with slots for adapters, and runs alike in the same memory. Layouts
  // with channels in front need them, or convolutions lose their blocked form.
  const write = graph.channelsLast && graph.dialect === 'cpu' ? writeShapeless : writeValueInfo
  for (const value of graph.inputs) pbf.writeMessage(11, write, value)
  for (const value of graph.outputs) pbf.writeMessage(12, write, value)
}

function writeNode(node: Node, pbf: PbfWriter): void {
  for (const input of node.inputs) pbf.writeStringField(1, input)
  for (const output of node.outputs) pbf.writeStringField(2, output)
  pbf.writeStringField(3, node.name)
  pbf.writeStringField(4, node.op)
  for (const attribute of Object.entries(node.attributes)) pbf.writeMessage(5, writeAttribute, attribute)
  if (node.domain !== '') pbf.writeStringField(7, node.domain)
}

/** Numbers are INT (type 2) unless wrapped as `{ float }` (1); arrays are INTS (7), strings STRING (3). */
function writeAttribute([name, value]: [string, Attribute], pbf: PbfWriter): void {
  pbf.writeStringField(1, name)
  if (typeof value === 'number') {
    pbf.writeVarintField(3, value)
    pbf.writeVarintField(20, 2)
  } else if (typeof value === 'string') {
    pbf.writeBytesField(4, new TextEncoder().encode(value))
    pbf.writeVarintField(20, 3)
  } else if ('float' in value) {
    pbf.writeFloatField(2, value.float)
    pbf.writeVarintField(20, 1)
  } else {
    pbf.writePackedVarint(8, [...value])
    pbf.writeVarintField(20, 7)
  }
}

function writeTensor(tensor: Initializer, pbf: PbfWriter): void {
  pbf.writePackedVarint(1, [...tensor.dims])
  pbf.writeVarintField(2, elementTypes[tensor.type])
  pbf.writeStringField(8, tensor.name)
  if ('bytes' in tensor) {
    pbf.writeBytesField(9, tensor.bytes)
    return
  }
  const place = { location: tensor.file, offset: String(tensor.offset), length: String(tensor.length) }
  for (const entry of Object.entries(place)) pbf.writeMessage(13, writeEntry, entry)
  pbf.writeVarintField(14, 1) // data_location = EXTERNAL
}

function writeEntry([key, value]: [string, string], pbf: PbfWriter): void {
  pbf.writeStringField(1, key)
  pbf.writeStringField(2, value)
}

function writeValueInfo(value: Value, pbf: PbfWriter): void {
  pbf.writeStringField(1, value.name)
  pbf.writeMessage(2, writeType, value) // TypeProto
}

function writeShapeless(value: Value, pbf: PbfWriter): void {
  pbf.writeStringField(1, value.name)
  pbf.writeMessage(2, writeBareType, value)
}

function writeBareType(value: Value, pbf: PbfWriter): void {
  pbf.writeMessage(1, (inner: Value) => pbf.writeVarintField(1, elementTypes[inner.type]), value)
}

function writeType(value: Value, pbf: PbfWriter): void {
  pbf.writeMessage(1, writeTensorType, value)
}

function writeTensorType(value: Value, pbf: PbfWriter): void {
  pbf.writeVarintField(1, elementTypes[value.type])
  pbf.writeMessage(2, writeShape, value)
}

function writeShape(value: Value, pbf: PbfWriter): void {
  value.shape.forEach((dim) => pbf.writeMessage(1, writeDim, { dim }))
}

/** An unknown size is an empty message. */
function writeDim({ dim }: { dim: number | string | null }, pbf: PbfWriter): void {
  if (typeof dim === 'number') pbf.writeVarintField(1, dim)
  if (typeof dim === 'string') pbf.writeStringField(2, dim)
}
