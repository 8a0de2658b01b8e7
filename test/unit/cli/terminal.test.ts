import { describe, expect, test } from 'vitest'
import {
  createProgress,
  duration,
  helpText,
  numberOption,
  parseCommandLine,
  progressLine,
  type CommandSpec,
} from '../../../main/cli/terminal.ts'

const spec = {
  command: 'npm run draw --',
  positionals: '"PROMPT"',
  summary: 'Draws.',
  options: { seed: { value: 'N', help: 'start' }, out: { value: 'FILE', help: 'where' }, fast: { help: 'hurry' } },
  example: 'npm run draw -- "x"',
} as const satisfies CommandSpec<string>

const refusal = (...argv: string[]) => {
  try {
    parseCommandLine(spec, argv)
  } catch (error) {
    return error as { code: string; message: string; hint?: string }
  }
  throw new Error('was not refused')
}

describe('parseCommandLine', () => {
  test('takes values with a space or an equals sign, switches and words without a name', () => {
    const args = parseCommandLine(spec, ['a', '--seed', '7', 'barn', '--out=x.png', '--fast', '--json'])
    expect(args.positionals).toEqual(['a', 'barn'])
    expect(args.options).toMatchObject({ seed: '7', out: 'x.png' })
    expect([args.isOn('fast'), args.isOn('json'), args.isHelp]).toEqual([true, true, false])
  })

  test('takes a negative number for a value and everything after -- for words', () => {
    expect(parseCommandLine(spec, ['--seed', '-3']).options.seed).toBe('-3')
    expect(parseCommandLine(spec, ['--', '--seed']).positionals).toEqual(['--seed'])
  })

  test('keeps every value of an option that is given several times', () => {
    const args = parseCommandLine(spec, ['--out', 'a', '--seed', '1', '--out=b', '--out', '-3'])
    expect(args.all('out')).toEqual(['a', 'b', '-3'])
    expect(args.options.out).toBe('-3')
    expect(args.all('fast')).toEqual([])
  })

  test('names the option that was meant', () => {
    expect(refusal('--sed', '7')).toMatchObject({
      code: 'bad-request',
      message: 'There is no option --sed.',
      hint: 'Did you mean --seed?',
    })
    expect(refusal('--wherever')).toMatchObject({ hint: 'See --help for all options.' })
    expect(refusal('-x')).toMatchObject({ message: 'There is no option -x.' })
  })

  test('refuses a missing value and a value too many', () => {
    for (const argv of [['--seed'], ['--seed', '--fast'], ['--seed=']]) {
      expect(refusal(...argv)).toMatchObject({ message: '--seed needs a value.', hint: 'Write --seed N.' })
    }
    expect(refusal('--fast=yes').message).toBe('--fast takes no value, got "yes".')
  })
})

test('helpText names every option, --json and --help among them, and ends with the example', () => {
  const text = helpText(spec)
  for (const name of ['--seed N', '--out FILE', '--fast', '--json', '--help']) expect(text).toContain(name)
  expect(text.endsWith('Example: npm run draw -- "x"')).toBe(true)
})

test('numberOption tells numbers from words', () => {
  expect(numberOption('seed', undefined)).toBeUndefined()
  expect(numberOption('seed', '1e3')).toBe(1000)
  for (const text of ['abc', '', ' ', '7x', 'Infinity'])
    expect(() => numberOption('seed', text)).toThrow('Expected --seed to be a number')
})

test('durations and progress read well', () => {
  expect([400, 8400, 125_000, 4_800_000].map(duration)).toEqual(['0 s', '8 s', '2 min 5 s', '1 h 20 min'])
  expect(progressLine('step 1 of 4', 0.25, 10_000)).toBe('step 1 of 4 · 25 % · about 30 s left')
  expect(progressLine('loading', 0, 10_000)).toBe('loading · 0 %')
})

describe('createProgress', () => {
  const written: string[] = []
  const stream = (isTTY: boolean) =>
    ({ isTTY, columns: 20, write: (text: string) => written.push(text) }) as unknown as NodeJS.WriteStream

  test('redraws one line that never wraps on a terminal, ten times a second at most', () => {
    written.length = 0
    let now = 0
    const progress = createProgress(stream(true), () => now)
    for (now = 0; now < 1000; now += 10) progress.update('a name that is longer than the terminal', 0)
    progress.clear()
    expect(written.length).toBe(11)
    for (const text of written) expect(text.replace('\r\x1b[2K', '').length).toBeLessThan(20)
    expect(written.at(-1)).toBe('\r\x1b[2K')
  })

  test('is sparse in a log', () => {
    written.length = 0
    let now = 0
    const progress = createProgress(stream(false), () => now)
    for (now = 0; now <= 60_000; now += 100) progress.update('step', now / 60_000)
    progress.clear()
    expect(written.length).toBe(6)
    expect(written.every((text) => text.endsWith('\n') && !text.includes('\x1b'))).toBe(true)
  })
})
