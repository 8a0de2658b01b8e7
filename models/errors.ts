/** What can go wrong in a way the person at the screen can do something about. */
export const errorCodes = [
  'bad-request',
  'model-missing',
  'checkpoint-unknown',
  'checkpoint-incomplete',
  'checkpoint-unsafe',
  'checkpoint-unsupported',
  'adapter-mismatch',
  'file-unreadable',
  'folder-unwritable',
  'disk-full',
  'out-of-memory',
  'engine-crashed',
  'library-locked',
  'signing-failed',
  'offline',
  'network-failed',
  'internal',
] as const

export type ErrorCode = (typeof errorCodes)[number]

/** An error as plain data: what crosses process borders and what the screen shows. */
export type ErrorReport = { code: ErrorCode; message: string; hint?: string }

/**
 * An expected failure. `message` says what happened, with the values; `hint` says what to do next.
 * Both are shown as they are, so they are written for an illustrator: no stack, no jargon.
 * A bug throws a plain Error instead and is reported as `internal`.
 */
export class VignetteError extends Error {
  readonly code: ErrorCode
  readonly hint?: string

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'VignetteError'
    this.code = code
    if (options.hint !== undefined) this.hint = options.hint
  }
}

/** Turns anything thrown into data. File-system failures that a person can mend get their own code and hint. */
export function reportError(error: unknown): ErrorReport {
  if (error instanceof VignetteError) {
    return { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) }
  }
  const known = fromSystemError(error)
  if (known) return reportError(known)
  return {
    code: 'internal',
    message: error instanceof Error ? error.message : String(error),
    hint: 'This is a fault in Vignette. The log says more.',
  }
}

/** Operating-system errors (ENOSPC, EACCES, …) as a VignetteError, or undefined when it is none of those. */
export function fromSystemError(error: unknown): VignetteError | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  const path = 'path' in error && typeof error.path === 'string' ? error.path : undefined
  const where = path === undefined ? '' : ` (${path})`
  switch (error.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new VignetteError('disk-full', `The disk is full${where}.`, {
        hint: 'Free some space or choose another folder; nothing finished was lost.',
        cause: error,
      })
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new VignetteError('folder-unwritable', `This place cannot be used${where}: access is not allowed.`, {
        hint: 'Choose a folder of your own, or change its permissions.',
        cause: error,
      })
    case 'ENOENT':
      return new VignetteError('file-unreadable', `There is no such file or folder${where}.`, {
        hint: 'Check the name; it may have been moved.',
        cause: error,
      })
    case 'EISDIR':
    case 'ENOTDIR':
      return new VignetteError(
        'file-unreadable',
        `A file was expected, or a folder, and the other was found${where}.`,
        {
          hint: 'Check the path.',
          cause: error,
        },
      )
    default:
      return undefined
  }
}
