import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Graph } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import { segmentsOf } from '../../models/graph/segment.ts'
import type { FloatTensor, IdTensor } from '../pipeline/tensor.ts'
import { openSession, type Session } from './networks.ts'

// A network that is larger than the memory runs piece by piece: a piece is opened, all rows pass through it, it is
// closed, and the next one follows. What flows from piece to piece waits on disk.

export type Inputs = Record<string, FloatTensor | IdTensor>

export type PieceOptions = {
  /** Folder of the weight files that the graph names; graphs of pieces and what flows between them lie there for a while. */
  folder: string
  /** Numbers of nodes to cut before: see `segmentsOf`. */
  cuts: readonly number[]
  threads: number
  /** Names of inner values that `onRow` wants to see. */
  exposed?: readonly string[]
  signal?: AbortSignal
}

export type PieceWatch = {
  /** A row has passed a piece; `valueOf` knows its inputs, its outputs and what is exposed in it. */
  onRow?(piece: Graph, row: number, valueOf: (name: string) => FloatTensor): void
  /** All rows have passed it and its weights are out of memory. */
  afterPiece?(piece: Graph): Promise<void>
  onProgress?(fraction: number): void
}

export type Pieces = {
  readonly count: number
  /** Runs every row through all pieces; gives back the graph's own outputs by name, one record a row. */
  run(rows: readonly Inputs[], outputs: readonly string[], watch?: PieceWatch): Promise<Record<string, FloatTensor>[]>
  release(): Promise<void>
}

/** Cuts a graph into pieces. One that is in one piece stays loaded between runs. */
export function openPieces(graph: Graph, options: PieceOptions): Pieces {
  const { folder, cuts, threads, exposed = [], signal } = options
  const pieces = segmentsOf(graph, cuts, exposed)
  const lastReader = new Map<string, number>()
  pieces.forEach((piece, i) => piece.inputs.forEach(({ name }) => lastReader.set(name, i)))
  const flow = openFlow(join(folder, 'flow'))
  let kept: Session | undefined

  async function open(piece: Graph): Promise<Session> {
    if (kept) return kept
    const path = join(folder, 'piece.onnx')
    try {
      await writeFile(path, toOnnx(piece))
      return await openSession(path, { provider: 'cpu', threads })
    } finally {
      await rm(path, { force: true })
    }
  }

  /** Takes the row through one piece and leaves on disk what later ones read. */
  async function step(session: Session, index: number, row: number, given: Inputs, keep: ReadonlySet<string>) {
    const piece = pieces[index]
    const feeds: Inputs = {}
    for (const { name } of piece.inputs) feeds[name] = given[name] ?? (await flow.get(name, row))
    const made = await session.run(
      feeds,
      piece.outputs.map(({ name }) => name),
    )
    for (const { name } of piece.outputs) {
      if ((lastReader.get(name) ?? -1) > index) await flow.put(name, row, made[name])
    }
    const own: Record<string, FloatTensor> = {}
    for (const name of keep) if (made[name]) own[name] = made[name]
    const valueOf = (name: string) => {
      const value = made[name] ?? feeds[name]
      if (!(value?.data instanceof Float32Array)) throw new Error(`${piece.name}: no numbers called "${name}"`)
      return value as FloatTensor
    }
    return { own, valueOf }
  }

  return {
    count: pieces.length,
    async run(rows, outputs, watch = {}) {
      const results: Record<string, FloatTensor>[] = rows.map(() => ({}))
      const keep = new Set(outputs)
      try {
        for (const [index, piece] of pieces.entries()) {
          const session = await open(piece)
          try {
            for (const [row, given] of rows.entries()) {
              signal?.throwIfAborted()
              const { own, valueOf } = await step(session, index, row, given, keep)
              Object.assign(results[row], own)
              watch.onRow?.(piece, row, valueOf)
              watch.onProgress?.((index + (row + 1) / rows.length) / pieces.length)
            }
          } finally {
            if (pieces.length === 1) kept = session
            else await session.release()
          }
          for (const [name, last] of lastReader) if (last === index) await flow.drop(name)
          await watch.afterPiece?.(piece)
        }
        return results
      } finally {
        await flow.clear()
      }
    },
    async release() {
      await kept?.release()
      kept = undefined
    },
  }
}

/** Tensors of rows, kept in files until nobody reads them any more. */
function openFlow(folder: string) {
  const shapes = new Map<string, Map<number, readonly number[]>>()
  const numbers = new Map<string, number>() // names of values are paths: files are numbered instead
  const fileOf = (name: string, row: number) => {
    if (!numbers.has(name)) numbers.set(name, numbers.size)
    return join(folder, `${numbers.get(name)}-${row}`)
  }
  return {
    async put(name: string, row: number, { data, shape }: FloatTensor): Promise<void> {
      if (shapes.size === 0) await mkdir(folder, { recursive: true })
      const known = shapes.get(name) ?? new Map<number, readonly number[]>()
      shapes.set(name, known.set(row, shape))
      await writeFile(fileOf(name, row), new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    },
    async get(name: string, row: number): Promise<FloatTensor> {
      const shape = shapes.get(name)?.get(row)
      if (!shape) throw new Error(`"${name}" of row ${row} was not kept`)
      const bytes = await readFile(fileOf(name, row))
      // A small file may come in Node's shared pool, off the boundary of a float.
      const aligned = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes)
      return { data: new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4), shape }
    },
    async drop(name: string): Promise<void> {
      for (const row of shapes.get(name)?.keys() ?? []) await rm(fileOf(name, row), { force: true })
      shapes.delete(name)
    },
    async clear(): Promise<void> {
      shapes.clear()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
