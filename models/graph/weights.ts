/** Element types that occur in checkpoints and graphs, by their safetensors names. */
export type Dtype =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U8'
  | 'U16'
  | 'U32'
  | 'U64'
  | 'BOOL'

/** Where one tensor lies on disk. Bytes are little-endian, C order; the data itself is never held here. */
export type StoredTensor = {
  /** File name relative to the model folder, or an absolute path while importing. */
  file: string
  /** First byte in the file, counted from its start. */
  offset: number
  /** Bytes. */
  length: number
  dtype: Dtype
  shape: number[]
}

/** Named tensors of one network, by their diffusers names. */
export type TensorTable = ReadonlyMap<string, StoredTensor>

/** A path into a table of tensors: `w.at('conv1').tensor('weight')` is `….conv1.weight`. */
export class Weights {
  readonly path: string
  private readonly table: TensorTable

  constructor(table: TensorTable, path = '') {
    this.table = table
    this.path = path
  }

  at(...parts: (string | number)[]): Weights {
    return new Weights(this.table, [this.path, ...parts].filter((part) => part !== '').join('.'))
  }

  has(name: string): boolean {
    return this.table.has(this.nameOf(name))
  }

  /** Throws a plain Error naming the path: by the time a graph is built, the importer has checked completeness. */
  tensor(name: string): StoredTensor {
    const found = this.table.get(this.nameOf(name))
    if (!found) throw new Error(`${this.nameOf(name)}: no such tensor`)
    return found
  }

  nameOf(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`
  }
}
