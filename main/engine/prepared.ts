import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'

/**
 * ONNX Runtime's own form of a large graph, kept beside the model: weights widened, reordered and packed for this very
 * processor, in a file that is mapped instead of built anew in memory. Measured on SD 1.5's UNet: loading 1.3 instead
 * of 11 CPU seconds, 0.2 instead of 3.8 GB of memory of our own (the rest is file cache that the system may take back),
 * for 4.6 GB of disk. The numbers that come out are the same to the last bit.
 *
 * A 4-bit UNet goes without: in low-memory mode it would load in 6.0 instead of 6.8 CPU seconds, with 0.27 instead of
 * 0.65 GB of our own and 0.88 GB in all either way, in fast mode in 7.3 instead of 8.0 and 0.19 instead of 1.02 GB, for 1.0
 * and 1.7 GB of disk, which is twice and three times the model. (Nearly all of these seconds ONNX Runtime's planner takes,
 * over 8,000 nodes.)
 */
export type PreparedStore = {
  /** The graph to load, when there is a whole one for this processor, runtime and model. */
  find(): string | undefined
  /** Where to write a new one; undefined when the disk is too full or read-only. */
  begin(): PreparedWork | undefined
  /** Throws the present one away: it could not be loaded. */
  remove(): void
}

export type PreparedWork = {
  graph: string
  /** Name of the weight file beside the graph. */
  weights: string
  /** Puts it in place for `find`. */
  finish(): void
  discard(): void
}

const graphName = 'graph.onnx'
const weightsName = 'weights.bin'
const sealName = 'complete.json'
/** The disk must keep this much after a file of about 1.4 times the loaded weights was written. */
const spareBytes = 5e9

export function preparedStore(
  modelFolder: string,
  network: string,
  graphFile: string,
  runtime: string,
  loadedBytes: number,
): PreparedStore {
  const home = join(modelFolder, 'prepared')
  const target = join(home, `${network}-${fingerprint(modelFolder, graphFile, runtime)}`)
  return {
    find() {
      try {
        const seal = JSON.parse(readFileSync(join(target, sealName), 'utf8')) as Seal
        const now = sealOf(target)
        if (seal.bytes === now.bytes && seal.sample === now.sample) return join(target, graphName)
      } catch {
        // None, or not whole.
      }
      return undefined
    },
    begin() {
      const part = join(home, `.${network}-${process.pid}.part`)
      try {
        const { bavail, bsize } = statfsSync(modelFolder)
        if (bavail * bsize < 1.5 * loadedBytes + spareBytes) return undefined
        clear(home, network)
        mkdirSync(part, { recursive: true })
      } catch {
        return undefined
      }
      return {
        graph: join(part, graphName),
        weights: weightsName,
        finish() {
          writeFileSync(join(part, sealName), JSON.stringify(sealOf(part)))
          // Another process was first: theirs is as good.
          if (existsSync(target)) rmSync(part, { recursive: true, force: true })
          else renameSync(part, target)
        },
        discard: () => rmSync(part, { recursive: true, force: true }),
      }
    },
    remove: () => rmSync(target, { recursive: true, force: true }),
  }
}

/** All that decides the bytes: graph, weights, runtime, processor. Weights by size and time; reading them takes long. */
function fingerprint(modelFolder: string, graphFile: string, runtime: string): string {
  const weights = readdirSync(modelFolder)
    .filter((name) => name.endsWith('.safetensors'))
    .sort()
    .map((name) => [name, statSync(join(modelFolder, name)).size, statSync(join(modelFolder, name)).mtimeMs])
  const facts = [runtime, process.platform, process.arch, cpus()[0]?.model, weights]
  return createHash('sha256').update(JSON.stringify(facts)).update(readFileSync(graphFile)).digest('hex').slice(0, 16)
}

/** Removes what was made for this network before: by another version, or by a process that was killed half-way. */
function clear(home: string, network: string): void {
  for (const name of existsSync(home) ? readdirSync(home) : []) {
    const pid = new RegExp(`^\\.${network}-(\\d+)\\.part$`).exec(name)?.[1]
    const isOld = name.startsWith(`${network}-`) || (pid !== undefined && !isAlive(Number(pid)))
    if (isOld) rmSync(join(home, name), { recursive: true, force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

type Seal = { bytes: number; sample: string }

/** Size and a hash of the graph and of 64 blocks across the weights: finds a file cut off or zeroed by a power cut. */
function sealOf(folder: string): Seal {
  const file = join(folder, weightsName)
  const bytes = statSync(file).size
  const hash = createHash('sha256').update(readFileSync(join(folder, graphName)))
  const block = Buffer.alloc(4096)
  const handle = openSync(file, 'r')
  try {
    for (let i = 0; i < 64; i++) {
      const length = readSync(handle, block, 0, block.length, Math.floor((i / 63) * Math.max(0, bytes - block.length)))
      hash.update(block.subarray(0, length))
    }
  } finally {
    closeSync(handle)
  }
  return { bytes, sample: hash.digest('hex') }
}
