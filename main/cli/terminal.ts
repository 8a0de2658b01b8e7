import { parseArgs } from 'node:util'
import { reportError, VignetteError, type ErrorReport } from '../../models/errors.ts'

/** One option of a command. Without `value` it is a switch. */
export type OptionSpec = { value?: string; help: string }

export type CommandSpec<Name extends string> = {
  /** As typed: "npm run generate --". */
  command: string
  /** What comes without a name, e.g. '"PROMPT"'. */
  positionals: string
  /** One or two sentences. */
  summary: string
  options: Record<Name, OptionSpec>
  example: string
  /** Further lines under the options. */
  notes?: string
}

export type ParsedArguments<Name extends string> = {
  positionals: string[]
  options: Partial<Record<Name, string>>
  /** Every value of an option that may be given several times, in order; `options` has the last. */
  all(name: Name): string[]
  isOn(name: Name | 'json'): boolean
}

/** What a command reports to. */
export interface Terminal {
  /** True with --json: stdout then carries one JSON value and nothing else. */
  readonly isJson: boolean
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal
  /** A line for the person: stdout, or stderr with --json. */
  say(line: string): void
  progress: Progress
  /** The result for programs; printed with --json only. */
  result(value: unknown): void
}

const common = {
  json: { help: 'print one JSON object for programs instead of text' },
  help: { help: 'show this text' },
} satisfies Record<string, OptionSpec>

/** The text of --help. */
export function helpText<Name extends string>(spec: CommandSpec<Name>): string {
  const rows = Object.entries<OptionSpec>({ ...spec.options, ...common }).map(([name, { value, help }]) => [
    `--${name}${value ? ` ${value}` : ''}`,
    help,
  ])
  const width = Math.max(...rows.map(([left]) => left.length))
  return [
    `Usage: ${spec.command} ${spec.positionals} [options]`,
    '',
    spec.summary,
    '',
    ...rows.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`),
    ...(spec.notes ? ['', spec.notes] : []),
    '',
    `Example: ${spec.example}`,
  ].join('\n')
}

/** Reads the command line after the spec. Whatever it does not know is a `bad-request` that names the nearest option. */
export function parseCommandLine<Name extends string>(
  spec: CommandSpec<Name>,
  argv: readonly string[],
): ParsedArguments<Name> & { isHelp: boolean } {
  const known: Record<string, OptionSpec> = { ...spec.options, ...common }
  const options = Object.fromEntries(
    Object.entries(known).map(([name, { value }]) => [
      name,
      { type: value === undefined ? ('boolean' as const) : ('string' as const), multiple: false },
    ]),
  )
  // Strictness is ours: Node's own messages are written for programmers, and a value like "-3" deserves to be taken.
  const { tokens } = parseArgs({
    args: joinNegativeValues(argv, known),
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const values: Record<string, string> = {}
  const lists = new Map<string, string[]>()
  const positionals: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value)
    if (token.kind !== 'option') continue
    const option = known[token.name]
    if (!option) {
      throw new VignetteError('bad-request', `There is no option ${token.rawName}.`, {
        hint: suggest(token.name, Object.keys(known)),
      })
    }
    if (option.value === undefined && token.value !== undefined) {
      throw new VignetteError('bad-request', `${token.rawName} takes no value, got "${token.value}".`)
    }
    const isNext = token.value?.startsWith('--') && !token.inlineValue // the next option, taken for a value
    if (option.value !== undefined && (token.value === undefined || token.value === '' || isNext)) {
      throw new VignetteError('bad-request', `${token.rawName} needs a value.`, {
        hint: `Write ${token.rawName} ${option.value}.`,
      })
    }
    values[token.name] = token.value ?? 'true'
    lists.set(token.name, [...(lists.get(token.name) ?? []), values[token.name]])
  }
  return {
    positionals,
    options: values as Partial<Record<Name, string>>,
    all: (name) => lists.get(name) ?? [],
    isOn: (name) => values[name] === 'true',
    isHelp: values.help === 'true',
  }
}

/** `--seed -3` as `--seed=-3`, so that it is refused for being negative and not for being an option. */
function joinNegativeValues(argv: readonly string[], known: Record<string, OptionSpec>): string[] {
  const joined: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const takesValue = argv[i].startsWith('--') && known[argv[i].slice(2)]?.value !== undefined
    if (takesValue && /^-[\d.]/.test(argv[i + 1] ?? '')) joined.push(`${argv[i]}=${argv[++i]}`)
    else joined.push(argv[i])
  }
  return joined
}

/** A number typed by a person, or undefined when the option was left out. The range is checked with the request. */
export function numberOption(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value))
    throw new VignetteError('bad-request', `Expected --${name} to be a number, got "${text}".`)
  return value
}

/**
 * Runs a command from its arguments to the process's exit code: 0 done, 2 for what the person can correct in the command,
 * 130 after Ctrl-C, else 1. An expected failure prints message and hint; a fault in the program also its stack.
 */
export async function runCli<Name extends string>(
  spec: CommandSpec<Name>,
  main: (args: ParsedArguments<Name>, terminal: Terminal) => Promise<void>,
): Promise<void> {
  const argv = process.argv.slice(2)
  const isJson = argv.includes('--json')
  const abort = new AbortController()
  const progress = createProgress(process.stderr)
  const out = isJson ? process.stderr : process.stdout
  let signalledAt = 0
  const onSignal = () => {
    // One Ctrl-C arrives twice when a parent passes on what the terminal has sent to both. Pressed again: end at once.
    if (abort.signal.aborted && performance.now() - signalledAt > 500) process.exit(130)
    if (abort.signal.aborted) return
    signalledAt = performance.now()
    progress.clear()
    process.stderr.write('Stopping after this step …\n')
    abort.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  // A reader that has seen enough (`| head`) closes the pipe; that is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  try {
    const args = parseCommandLine(spec, argv)
    if (args.isHelp) process.stdout.write(`${helpText(spec)}\n`)
    else {
      await main(args, {
        isJson,
        signal: abort.signal,
        progress,
        say: (line) => {
          progress.clear()
          out.write(`${line}\n`)
        },
        result: (value) => void (isJson && process.stdout.write(`${JSON.stringify(value)}\n`)),
      })
    }
    progress.clear()
    if (abort.signal.aborted) process.exitCode = 130
  } catch (error) {
    progress.clear()
    if (abort.signal.aborted) process.exitCode = 130
    else {
      const report = reportError(error)
      process.exitCode = report.code === 'bad-request' ? 2 : 1
      if (isJson) process.stdout.write(`${JSON.stringify({ error: report })}\n`)
      else process.stderr.write(`${failureText(report)}\n`)
      if (report.code === 'internal' && error instanceof Error) process.stderr.write(`${error.stack}\n`)
    }
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

/** Message and hint for the person, and the code for whoever they ask about it. */
function failureText({ code, message, hint }: ErrorReport): string {
  return [message, ...(hint === undefined ? [] : [hint]), `(${code})`].join('\n')
}

export interface Progress {
  /** `fraction` 0 to 1 of the whole command; the remaining time is worked out from how fast it moves. */
  update(what: string, fraction: number): void
  clear(): void
}

/** One line that is redrawn on a terminal; elsewhere (a log, a pipe) a new line at most every ten seconds. */
export function createProgress(stream: NodeJS.WriteStream, now: () => number = () => performance.now()): Progress {
  const startedAt = now()
  const interval = stream.isTTY ? 100 : 10_000
  let shownAt = stream.isTTY ? -Infinity : startedAt
  let isDrawn = false
  return {
    update(what, fraction) {
      const time = now()
      if (time - shownAt < interval) return
      shownAt = time
      const line = progressLine(what, fraction, time - startedAt)
      stream.write(stream.isTTY ? `\r\x1b[2K${line.slice(0, (stream.columns ?? 80) - 1)}` : `${line}\n`)
      isDrawn = true
    },
    clear() {
      if (stream.isTTY && isDrawn) stream.write('\r\x1b[2K')
      isDrawn = false
    },
  }
}

/** "step 3 of 20 · 15 % · about 40 s left". No time before a twentieth is done: it would be a guess. */
export function progressLine(what: string, fraction: number, elapsedMs: number): string {
  const percent = `${Math.floor(100 * fraction)} %`
  if (fraction < 0.05 || elapsedMs < 500) return `${what} · ${percent}`
  return `${what} · ${percent} · about ${duration((elapsedMs * (1 - fraction)) / fraction)} left`
}

/** "8 s", "2 min 5 s", "1 h 20 min". */
export function duration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}

/** The option with the fewest edits, when it is near enough to be meant. */
function suggest(name: string, options: string[]): string {
  const ranked = options
    .map((option) => ({ option, distance: editDistance(name, option) }))
    .sort((a, b) => a.distance - b.distance)
  return ranked[0].distance <= 2 ? `Did you mean --${ranked[0].option}?` : 'See --help for all options.'
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]
}
