import { appendFileSync, mkdirSync, renameSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

export type Log = {
  info(message: string): void
  warn(message: string, error?: unknown): void
  error(message: string, error?: unknown): void
}

const maxBytes = 1_000_000

/**
 * A text log that stays on this computer: one file and the one before it. Written at once, since the line that matters
 * most is the last one before a crash.
 */
export function createLog(file: string): Log {
  let isWritable = true
  try {
    mkdirSync(dirname(file), { recursive: true })
    if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > maxBytes) renameSync(file, `${file}.1`)
  } catch {
    isWritable = false
  }
  const write = (level: string, message: string, error?: unknown) => {
    const line = `${new Date().toISOString()} ${level} ${message}${error === undefined ? '' : `: ${describe(error)}`}\n`
    try {
      if (isWritable) appendFileSync(file, line)
    } catch {
      isWritable = false // A full disk must not stop the application because of its log.
    }
    if (level !== 'info') process.stderr.write(line)
  }
  return {
    info: (message) => write('info', message),
    warn: (message, error) => write('warn', message, error),
    error: (message, error) => write('error', message, error),
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\n  caused by ${describe(error.cause)}`
  return `${error.stack ?? error.message}${cause}`
}
