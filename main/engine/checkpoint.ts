import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdir, open, readFile, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { DenoiserMemory } from '../pipeline/recall.ts'

// What an unfinished picture has cost so far, so that it goes on after a pause or a crash: the estimates of the clean
// latents (pipeline/recall.ts), appended to a file. Layout, little-endian:
//
//   "VGCP" | u32 version | u32 values per record | u32 0 | 32 bytes: what the job is (sha256)      48 bytes
//   record: f32 × values | first 8 bytes of sha256(key, number of the record, values)
//
// Only the end of such a file can be wrong: cut off, or, after a power cut, full of zeros. Reading ends where it is.

const version = 1
const headerBytes = 48
const checkBytes = 8

export type CheckpointOptions = {
  /** Says what the job is: a checkpoint of another one counts as none. */
  key: string
  /** Numbers of the latents of all pictures that are drawn together. */
  values: number
  /** Records go to the disk at most this often. */
  everyMs: number
  now?: () => number
}

export interface Checkpoint extends DenoiserMemory {
  /** Writes what is not on the disk yet, and closes the file. It stays: whoever keeps the picture removes it. */
  close(): Promise<void>
}

/**
 * Opens the checkpoint of a job, or begins one. A disk that is full or a folder that cannot be written costs the checkpoint,
 * never the picture.
 */
export async function openCheckpoint(file: string, options: CheckpointOptions): Promise<Checkpoint> {
  const { values, everyMs, now = () => performance.now() } = options
  const key = createHash('sha256').update(options.key).digest()
  const recorded = parse(await readFile(file).catch(() => undefined), key, values)
  let count = recorded.length
  let handle: FileHandle | undefined
  let end = headerBytes + count * recordBytes(values)
  let waiting: Buffer[] = []
  let writtenAt = now()
  let isBroken = false

  async function flush(): Promise<void> {
    const bytes = Buffer.concat(waiting)
    waiting = []
    writtenAt = now()
    if (isBroken || bytes.length === 0) return
    try {
      handle ??= await begin(file, headerOf(key, values), end)
      await handle.write(bytes, 0, bytes.length, end)
      end += bytes.length
      await handle.datasync()
    } catch {
      isBroken = true // what follows a gap is of no use
    }
  }

  return {
    recorded,
    async onDenoised(denoised) {
      const data = Buffer.from(denoised.slice().buffer)
      waiting.push(data, checkOf(key, count++, data))
      if (now() - writtenAt >= everyMs) await flush()
    },
    async close() {
      await flush()
      await handle?.close().catch(() => {})
    },
  }
}

/** The file with this header, cut off after its good records. */
async function begin(file: string, header: Buffer, end: number): Promise<FileHandle> {
  await mkdir(dirname(file), { recursive: true })
  const handle = await open(file, constants.O_RDWR | constants.O_CREAT)
  try {
    await handle.truncate(end)
    // Written again even when it is there: this is also where a checkpoint of another job ends.
    await handle.write(header, 0, headerBytes, 0)
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

function headerOf(key: Buffer, values: number): Buffer {
  const header = Buffer.alloc(headerBytes)
  header.write('VGCP', 'latin1')
  header.writeUInt32LE(version, 4)
  header.writeUInt32LE(values, 8)
  key.copy(header, 16)
  return header
}

function parse(bytes: Buffer | undefined, key: Buffer, values: number): Float32Array[] {
  if (!bytes || !bytes.subarray(0, headerBytes).equals(headerOf(key, values))) return []
  const recorded: Float32Array[] = []
  for (let at = headerBytes; at + recordBytes(values) <= bytes.length; at += recordBytes(values)) {
    const data = bytes.subarray(at, at + 4 * values)
    const check = bytes.subarray(at + 4 * values, at + recordBytes(values))
    if (!check.equals(checkOf(key, recorded.length, data))) break
    recorded.push(new Float32Array(Uint8Array.from(data).buffer))
  }
  return recorded
}

function recordBytes(values: number): number {
  return 4 * values + checkBytes
}

function checkOf(key: Buffer, index: number, data: Buffer): Buffer {
  const number = Buffer.alloc(4)
  number.writeUInt32LE(index)
  return createHash('sha256').update(key).update(number).update(data).digest().subarray(0, checkBytes)
}
