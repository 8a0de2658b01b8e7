import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export type Result = { code: number | null; stdout: string; stderr: string }

const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))

/**
 * A command of main/cli as a person runs it: a process of its own, started in `cwd`, with `home` as VIGNETTE_HOME. `result`
 * fills while it runs; `done` gives it whole.
 */
export function startCommand(
  name: string,
  args: readonly string[],
  { cwd, home }: { cwd: string; home: string },
): { child: ChildProcess; result: Result; done: Promise<Result> } {
  const script = fileURLToPath(new URL(`../../main/cli/${name}.ts`, import.meta.url))
  const child = spawn(process.execPath, ['--import', loader, script, ...args], {
    cwd,
    env: { ...process.env, VIGNETTE_HOME: home },
  })
  const result: Result = { code: null, stdout: '', stderr: '' }
  child.stdout.on('data', (data: Buffer) => (result.stdout += data.toString()))
  child.stderr.on('data', (data: Buffer) => (result.stderr += data.toString()))
  const done = new Promise<Result>((resolve) => child.on('close', (code) => resolve({ ...result, code })))
  return { child, result, done }
}
