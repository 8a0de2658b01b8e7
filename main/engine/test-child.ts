import { fork } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { vignetteHome } from '../../models/home.ts'

// Tests of drivers and kernels run in a process of their own, which may crash or hang, and are remembered.

/** What a test said until it ended, and why it ended before it was done; not final when a busy moment may be to blame. */
export type TestRun = { messages: unknown[]; failure?: { reason: string; isFinal: boolean } }

/** Runs the engine's entry file with `args` until the message that `isLast` knows, or as long as `limitMs`. */
export function runTestChild(
  entry: string,
  args: readonly string[],
  limitMs: number,
  isLast: (message: unknown) => boolean,
): Promise<TestRun> {
  return new Promise((resolve) => {
    // Inside Electron the executable is Electron: this makes it behave as Node.
    const env = process.versions.electron ? { ...process.env, ELECTRON_RUN_AS_NODE: '1' } : process.env
    const child = fork(entry, args, { env, serialization: 'advanced', stdio: 'ignore' })
    const run: TestRun = { messages: [], failure: { reason: 'the test program crashed', isFinal: true } }
    const timer = setTimeout(() => {
      run.failure = { reason: `no answer within ${limitMs / 1000} s`, isFinal: false }
      child.kill('SIGKILL')
    }, limitMs)
    child.on('message', (message) => {
      run.messages.push(message)
      if (!isLast(message)) return
      delete run.failure
      // Some drivers crash or hang while they are shut down, after the work is done: it gets no chance to.
      child.kill('SIGKILL')
    })
    child.on('error', (error) => (run.failure = { reason: error.message, isFinal: false }))
    // 'close' comes after 'exit' and 'error', when no message can arrive any more.
    child.on('close', () => {
      clearTimeout(timer)
      resolve(run)
    })
  })
}

/** What is kept about `key` in a file of VIGNETTE_HOME; a damaged file knows nothing. */
export function recall<T>(file: string, key: string): T | undefined {
  return readAll<T>(file)[key]
}

/** Keeps it. A file that cannot be written costs half a second at the next start, nothing more. */
export function remember<T>(file: string, key: string, value: T): void {
  const path = join(vignetteHome(), file)
  try {
    mkdirSync(dirname(path), { recursive: true })
    const temporary = `${path}.${process.pid}.tmp`
    writeFileSync(temporary, JSON.stringify({ ...readAll<T>(file), [key]: value }, null, 1))
    renameSync(temporary, path)
  } catch {
    // As said.
  }
}

function readAll<T>(file: string): Record<string, T> {
  try {
    return JSON.parse(readFileSync(join(vignetteHome(), file), 'utf8')) as Record<string, T>
  } catch {
    return {}
  }
}
