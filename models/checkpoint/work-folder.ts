import { randomUUID } from 'node:crypto'
import { appendFile, mkdir, open, readFile, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { VignetteError, fromSystemError } from '../errors.ts'

/** What has been done so far, one JSON object a line. The first line says for which source and settings. */
type JournalEntry =
  | { key: string }
  /** The first `tensors` tensors of a weight file, in file order, are on disk. */
  | { file: string; tensors: number }
  /** A tensor of a weight file whose values are too large for 16 bits. */
  | { file: string; widened: string }
  /** Any other piece of work that is done, and what has to be remembered of it. */
  | Finished

type Finished = { step: string; value: unknown }

/**
 * The folder `.<name>.partial` beside the target (hidden, so that nobody takes it for a model) in which a model is put together. A run that is killed leaves it behind and the next
 * one goes on from its journal; any other end removes it. The finished model appears under its own name in one step.
 */
export type WorkFolder = {
  path: string
  /** Tensors of `file` that an earlier run finished, and the names it had to widen. */
  done(file: string): { tensors: number; widened: Set<string> }
  /** What `record` has been told of steps, by an earlier run, too. */
  finished(step: string): unknown
  record(entry: { file: string; tensors: number } | { file: string; widened: string } | Finished): Promise<void>
  /** Moves the folder to its place; an older model there gives way. */
  finish(): Promise<void>
  discard(): Promise<void>
}

export const workPath = (target: string) => join(dirname(target), `.${basename(target)}.partial`)

const journalName = 'journal.ndjson'

/** Opens the work folder of `target`; what an earlier run left is kept only when it had the same `key`. */
export async function openWorkFolder(target: string, key: string): Promise<WorkFolder> {
  const path = workPath(target)
  let entries = await readJournal(path)
  const [first] = entries
  if (!first || !('key' in first) || first.key !== key) {
    await rm(path, { recursive: true, force: true })
    await mkdir(path, { recursive: true })
    entries = [{ key }]
    await appendFile(join(path, journalName), `${JSON.stringify(entries[0])}\n`)
  }
  const record = async (entry: JournalEntry) => {
    entries.push(entry)
    await appendFile(join(path, journalName), `${JSON.stringify(entry)}\n`)
  }
  return {
    path,
    done(file) {
      let tensors = 0
      const widened = new Set<string>()
      for (const entry of entries) {
        if (!('file' in entry) || entry.file !== file) continue
        if ('tensors' in entry) tensors = entry.tensors
        else widened.add(entry.widened)
      }
      return { tensors, widened }
    },
    finished: (step) =>
      (entries.find((entry) => 'step' in entry && entry.step === step) as Finished | undefined)?.value,
    record,
    async finish() {
      await rm(join(path, journalName), { force: true })
      // A model in its place must be whole even when the power goes the moment after.
      for (const name of await readdir(path)) await syncFile(join(path, name))
      const aside = join(dirname(target), `.${basename(target)}.${randomUUID()}.old`)
      const hadOlder = await rename(target, aside).then(
        () => true,
        () => false,
      )
      try {
        await rename(path, target)
      } catch (error) {
        if (hadOlder) await rename(aside, target)
        throw error
      }
      if (hadOlder) await rm(aside, { recursive: true, force: true })
    },
    discard: () => rm(path, { recursive: true, force: true }),
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** A line that a crash cut off is left out, and ended so that what is recorded next is a line of its own. */
async function readJournal(path: string): Promise<JournalEntry[]> {
  const file = join(path, journalName)
  const text = await readFile(file, 'utf8').catch(() => '')
  if (text !== '' && !text.endsWith('\n')) await appendFile(file, '\n')
  const entries: JournalEntry[] = []
  for (const line of text.split('\n').slice(0, -1)) {
    try {
      entries.push(JSON.parse(line) as JournalEntry)
    } catch {
      continue
    }
  }
  return entries
}

const heartbeatMs = 2000
const staleMs = 60_000

/**
 * Keeps two processes from putting the same model together at once. Returns undefined when another one is at it. The
 * lock of a process that died, or has not been heard of for a minute, is taken over.
 */
export async function tryLock(target: string): Promise<(() => Promise<void>) | undefined> {
  const path = join(dirname(target), `.${basename(target)}.lock`)
  const owner = `${process.pid} ${randomUUID()}`
  try {
    await mkdir(dirname(target), { recursive: true })
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        const file = await open(path, 'wx')
        await file.writeFile(owner)
        await file.close()
        const beat = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => undefined), heartbeatMs)
        beat.unref()
        return async () => {
          clearInterval(beat)
          if ((await readFile(path, 'utf8').catch(() => '')) === owner) await rm(path, { force: true })
        }
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
      }
      if (!(await isStale(path)) || !(await takeAway(path))) return undefined
    }
    return undefined
  } catch (error) {
    const known = fromSystemError(error)
    if (known?.code !== 'folder-unwritable') throw error
    throw new VignetteError('folder-unwritable', `Nothing can be written in ${dirname(target)}.`, {
      hint: `Choose another place for "${basename(target)}", or change the folder's permissions.`,
      cause: error,
    })
  }
}

/** Removes a stale lock. A second lock makes sure that nobody removes the fresh one of a quicker process instead. */
async function takeAway(path: string): Promise<boolean> {
  const guard = `${path}.takeover`
  try {
    await (await open(guard, 'wx')).close()
  } catch {
    const info = await stat(guard).catch(() => undefined)
    if (info && Date.now() - info.mtimeMs > staleMs) await rm(guard, { force: true })
    return false
  }
  try {
    if (await isStale(path)) await rm(path, { force: true })
    return true
  } finally {
    await rm(guard, { force: true })
  }
}

async function isStale(path: string): Promise<boolean> {
  const [text, info] = await Promise.all([
    readFile(path, 'utf8').catch(() => undefined),
    stat(path).catch(() => undefined),
  ])
  if (text === undefined || !info) return true // gone in the meantime
  const age = Date.now() - info.mtimeMs
  const pid = Number(text.split(' ')[0])
  if (text === '' || !Number.isInteger(pid)) return age > heartbeatMs // created, but its owner not written yet
  if (age > staleMs) return true
  try {
    process.kill(pid, 0) // signal 0 only asks whether the process is there
    return false
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'EPERM')
  }
}
