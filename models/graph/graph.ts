import { floatToHalf } from './half.ts'
import type { Dtype, StoredTensor, Weights } from './weights.ts'

/** A size that is known, one that goes by a name ('h'), or one that only the run will tell. */
export type Dim = number | string | null
export type ElementType = 'f32' | 'f16' | 'i64' | 'i32' | 'i8' | 'u8' | 'bool'

/** One tensor that flows through a graph. Values are made by `Graph` and the functions of `ops.ts` only. */
export type Value = {
  readonly graph: Graph
  readonly name: string
  readonly type: ElementType
  readonly shape: readonly Dim[]
}

export type Attribute = number | string | readonly number[] | { float: number }

export type Node = {
  name: string
  op: string
  /** '' for ONNX's own operators, 'com.microsoft' for ONNX Runtime's. */
  domain: string
  /** Names; '' leaves an optional input out. */
  inputs: string[]
  outputs: string[]
  attributes: Record<string, Attribute>
}

/** A constant of the graph: small ones carry their bytes, weights say where they lie. */
export type Initializer = { name: string; type: ElementType; dims: readonly number[] } & (
  { bytes: Uint8Array } | { file: string; offset: number; length: number }
)

export type NodeOptions = { domain?: string; attributes?: Record<string, Attribute>; name?: string }

export type Dialect = 'cpu' | 'webgpu'

/** Layers that adapters mostly change together, so that one graph serves many adapters and few layers have idle slots. */
export type SlotGroup = 'attention' | 'mlp' | 'time' | 'conv'

export type GraphOptions = {
  dialect: Dialect
  /** Element type of weights and activations between the inputs and outputs. */
  computeType?: 'f32' | 'f16'
  /** Attention as one operator that never holds all scores, where the provider's own can be trusted. */
  fusedAttention?: boolean
  /** Pictures inside the network as [n, h, w, c]: quantised networks, where a convolution is a product over rows of pixels. */
  channelsLast?: boolean
  /**
   * The layers that take adapters: each gets the inputs `<path>.down` [r, k], `<path>.up` [r, out] and `<path>.scale`; see
   * kernels/slot.ts. `mixed`: every picture of a batch has weights of its own.
   */
  slots?: { groups: ReadonlySet<SlotGroup>; mixed?: boolean }
  /** Modules whose `weight` and `bias` are inputs under their own names instead of constants. */
  live?: ReadonlySet<string>
  /** A guidance-distillation adapter of this width beside every attention to the text; see models/guidance.ts. */
  guidance?: { width: number }
  /** Which pixels of the outermost attention are keys, as an input of the UNet: `key_stride`, see `everyOther`. */
  keyStride?: boolean
  /** Told every weight asked for; the table of tensors is then not looked at (see `requiredTensors`). */
  onWeight?: (name: string, shape: readonly number[]) => void
}

/** One layer with a matrix of weights, and what it read: the calibration of a quantiser looks at these values. */
export type Layer = {
  path: string
  input: Value
  /** Index of the layer's first node. */
  node: number
} & (
  | { kind: 'linear' }
  | {
      kind: 'conv'
      kernel: 1 | 3
      stride: 1 | 2
      pads: readonly [number, number, number, number]
      /** What it reads is the input at twice its size, each pixel four times. */
      upsampled?: boolean
    }
)

/** An ONNX graph while it is being built: nodes in order of execution, constants, inputs and outputs. */
export class Graph {
  readonly name: string
  readonly options: GraphOptions
  readonly dialect: Dialect
  readonly computeType: 'f32' | 'f16'
  readonly fusedAttention: boolean
  readonly channelsLast: boolean
  readonly slots: GraphOptions['slots']
  readonly live: ReadonlySet<string>
  readonly nodes: Node[] = []
  readonly initializers: Initializer[] = []
  readonly inputs: Value[] = []
  readonly outputs: Value[] = []
  /** Every value by its name. */
  readonly values = new Map<string, Value>()
  /** In the order of execution. */
  readonly layers: Layer[] = []
  /** Numbers of nodes at the ends of blocks: good places to cut (see `segment.ts`). */
  readonly blockEnds: number[] = []
  private readonly onWeight: GraphOptions['onWeight']
  private readonly constants = new Map<string, Value>()
  private readonly uses = new Map<string, number>()

  constructor(name: string, options: GraphOptions) {
    this.name = name
    this.options = options
    this.dialect = options.dialect
    this.computeType = options.computeType ?? 'f32'
    this.fusedAttention = options.fusedAttention ?? options.dialect === 'cpu'
    this.channelsLast = options.channelsLast ?? false
    this.slots = options.slots
    this.live = options.live ?? new Set()
    this.onWeight = options.onWeight
  }

  input(name: string, type: ElementType, shape: readonly Dim[]): Value {
    const value = this.value(name, type, shape)
    this.inputs.push(value)
    return value
  }

  /** The input of this name, made when it is first asked for. */
  inputOnce(name: string, type: ElementType, shape: readonly Dim[]): Value {
    return this.inputs.find((input) => input.name === name) ?? this.input(name, type, shape)
  }

  /** Names `value` as an output. It gets an Identity of its own, so that one value may have several names. */
  output(name: string, value: Value, shape: readonly Dim[] = value.shape): void {
    this.nodes.push({ name, op: 'Identity', domain: '', inputs: [value.name], outputs: [name], attributes: {} })
    this.outputs.push(this.value(name, value.type, shape))
  }

  /** A small constant, stored in the graph itself; equal ones are stored once. */
  constant(type: ElementType, dims: readonly number[], numbers: ArrayLike<number>): Value {
    const bytes = encode(type, numbers)
    const key = `${type} ${dims.join()} ${Buffer.from(bytes).toString('base64')}`
    const known = this.constants.get(key)
    if (known) return known
    const value = this.value(this.unique('constant'), type, dims)
    this.initializers.push({ name: value.name, type, dims, bytes })
    this.constants.set(key, value)
    return value
  }

  /**
   * The tensor `name` at `w`, as `dims` (the same elements under another shape; `shape` when left out), or of these only
   * the part `rows` along the first axis. Throws when the stored shape differs from `shape` in more than trailing ones.
   */
  weight(
    w: Weights,
    name: string,
    shape: readonly number[],
    dims: readonly number[] = shape,
    rows: readonly [number, number] = [0, dims[0]],
  ): Value {
    const path = w.nameOf(name)
    this.onWeight?.(path, shape)
    const stored = this.onWeight ? nowhere : w.tensor(name)
    if (!this.onWeight) {
      const same = trimmed(stored.shape).join() === trimmed(shape).join()
      if (!same) throw new Error(`${path}: expected ${list(shape)}, the file has ${list(stored.shape)}`)
    }
    const type = weightTypes[stored.dtype]
    if (!type) throw new Error(`${path}: weights are F32, F16, I8 or U8 here, not ${stored.dtype}`)
    const [start, end] = rows
    const part = [end - start, ...dims.slice(1)]
    const value = this.value(this.unique(path), type, part)
    const perRow = stored.length / dims[0]
    const place = { offset: stored.offset + start * perRow, length: (end - start) * perRow }
    this.initializers.push({ name: value.name, type, dims: part, file: stored.file, ...place })
    return value
  }

  /** Adds a node with one output. `inputs` may hold undefined for an optional input that is left out. */
  node(
    op: string,
    inputs: readonly (Value | undefined)[],
    result: { type: ElementType; shape: readonly Dim[] },
    options: NodeOptions = {},
  ): Value {
    return this.nodeOfMany(op, inputs, [result], options)[0]
  }

  /** Adds a node with an output for each of `results`, in the operator's order. */
  nodeOfMany(
    op: string,
    inputs: readonly (Value | undefined)[],
    results: readonly { type: ElementType; shape: readonly Dim[] }[],
    { domain = '', attributes = {}, name = op }: NodeOptions = {},
  ): Value[] {
    const values = results.map(({ type, shape }) => this.value(this.unique(name), type, shape))
    const names = inputs.map((input) => input?.name ?? '')
    const outputs = values.map((value) => value.name)
    this.nodes.push({ name: outputs[0], op, domain, inputs: names, outputs, attributes })
    return values
  }

  /** Notes that a block ends with the node made last. */
  endBlock(): void {
    this.blockEnds.push(this.nodes.length)
  }

  /** A value of this name that some node outside this class makes. */
  value(name: string, type: ElementType, shape: readonly Dim[]): Value {
    const value = { graph: this, name, type, shape }
    this.values.set(name, value)
    return value
  }

  private unique(name: string): string {
    for (;;) {
      const count = this.uses.get(name) ?? 0
      this.uses.set(name, count + 1)
      const candidate = count === 0 ? name : `${name}~${count}`
      if (!this.values.has(candidate)) return candidate
    }
  }
}

const weightTypes: Partial<Record<Dtype, ElementType>> = { F32: 'f32', F16: 'f16', I8: 'i8', U8: 'u8' }

const nowhere: StoredTensor = { file: '', offset: 0, length: 0, dtype: 'F32', shape: [] }

/** Throws, naming the path, when a known size of `value` is not the wanted one. null and names match any size. */
export function expectShape(path: string, value: Value, wanted: readonly Dim[]): void {
  const fits =
    value.shape.length === wanted.length &&
    wanted.every((dim, i) => typeof dim !== 'number' || typeof value.shape[i] !== 'number' || dim === value.shape[i])
  if (!fits) throw new Error(`${path}: expected ${list(wanted)}, got ${list(value.shape)}`)
}

/** The size at `axis`; throws when it is not known while building. */
export function knownDim(path: string, value: Value, axis: number): number {
  const dim = value.shape.at(axis)
  if (typeof dim !== 'number') throw new Error(`${path}: size ${axis} of ${list(value.shape)} must be known`)
  return dim
}

function list(shape: readonly Dim[]): string {
  return `[${shape.map((dim) => dim ?? '?').join(', ')}]`
}

function trimmed(shape: readonly number[]): readonly number[] {
  let end = shape.length
  while (end > 0 && shape[end - 1] === 1) end--
  return shape.slice(0, end)
}

function encode(type: ElementType, numbers: ArrayLike<number>): Uint8Array {
  if (type === 'f32') return new Uint8Array(Float32Array.from(numbers).buffer)
  if (type === 'f16') return new Uint8Array(Uint16Array.from(Array.from(numbers), floatToHalf).buffer)
  if (type === 'u8') return Uint8Array.from(numbers)
  if (type === 'i8') return new Uint8Array(Int8Array.from(numbers).buffer)
  if (type === 'i64') return new Uint8Array(BigInt64Array.from(Array.from(numbers), BigInt).buffer)
  throw new Error(`no constants of type ${type}`)
}
