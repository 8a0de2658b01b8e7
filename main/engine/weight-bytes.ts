import { readFileSync } from 'node:fs'
import { PbfReader } from 'pbf'

/**
 * About how many bytes the weights of one graph take once loaded. Half precision counts double, because the CPU widens
 * it to float32 at load. Reads only the .onnx file (onnx.proto3: ModelProto.graph = 7, GraphProto.initializer = 5,
 * TensorProto.dims = 1 and data_type = 2); the weight files are not opened.
 */
export function loadedWeightBytes(onnxFile: string): number {
  const sum = { bytes: 0 }
  new PbfReader(readFileSync(onnxFile)).readFields((tag, _, model) => {
    if (tag === 7) model.readMessage(readGraph, sum)
  }, null)
  return sum.bytes
}

function readGraph(tag: number, sum: { bytes: number }, reader: PbfReader) {
  if (tag !== 5) return
  const { dims, dataType } = reader.readMessage(readTensor, { dims: [] as number[], dataType: 0 })
  sum.bytes += dims.reduce((product, dim) => product * dim, 1) * (elementBytes[dataType] ?? 4)
}

function readTensor(tag: number, into: { dims: number[]; dataType: number }, reader: PbfReader) {
  if (tag === 1) reader.readPackedVarint(into.dims)
  else if (tag === 2) into.dataType = reader.readVarint()
}

/** By TensorProto.DataType; the two half-precision types (10, 16) as the float32 they become. */
const elementBytes: Record<number, number> = {
  1: 4,
  2: 1,
  3: 1,
  4: 2,
  5: 2,
  6: 4,
  7: 8,
  9: 1,
  10: 4,
  11: 8,
  12: 4,
  13: 8,
  16: 4,
  21: 0.5,
  22: 0.5,
}
