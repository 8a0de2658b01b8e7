// The entry behind every npm script that a newcomer runs: does all set-up, says so, then runs the command.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { checkNode, ensureBuild, ensurePackages, ensureSystemPackages, root } from './setup.mjs'

const [command, ...args] = process.argv.slice(2)

/** Runs a child with our terminal, passes on Ctrl-C, resolves with its exit code. */
function exec(program, parameters, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, parameters, { cwd: process.cwd(), stdio: 'inherit', env: { ...process.env, ...env } })
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
    child.on('error', reject)
    child.on('exit', (code, signal) => resolve(signal ? 130 : (code ?? 1)))
  })
}
/** Node with TypeScript: file names on the command line stay relative to where the person stands. */
const typescript = (file, parameters) =>
  exec(process.execPath, [
    '--import',
    `file://${join(root, 'node_modules/tsx/dist/loader.mjs')}`,
    join(root, file),
    ...parameters,
  ])

/** All test projects in one run; ends with one plain line that any build log reader understands. */
async function test(parameters) {
  ensureSystemPackages('tests')
  ensureBuild()
  const report = join(root, '.cache', 'tests.json')
  mkdirSync(join(root, '.cache'), { recursive: true })
  rmSync(report, { force: true })
  const code = await exec(process.execPath, [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--root',
    root,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...parameters,
  ])
  if (existsSync(report)) {
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(readFileSync(report, 'utf8'))
    const skipped = (numPendingTests ?? 0) + (numTodoTests ?? 0)
    console.log(`${numPassedTests} passed, ${numFailedTests} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  }
  return code
}

const commands = {
  start: () => (ensureSystemPackages('window'), ensureBuild(), typescript('scripts/start.ts', args)),
  dev: () => (ensureSystemPackages('window'), typescript('scripts/start.ts', ['--dev', ...args])),
  generate: () => typescript('main/cli/generate.ts', args),
  convert: () => typescript('main/cli/convert.ts', args),
  adapter: () => typescript('main/cli/adapter.ts', args),
  quantize: () => typescript('main/cli/quantize.ts', args),
  bench: () => typescript('main/cli/bench.ts', args),
  'bench:app': () => (ensureSystemPackages('window'), ensureBuild(), typescript('scripts/bench-app.ts', args)),
  package: () => (ensureBuild(), typescript('scripts/package.ts', args)),
  test: () => test(args),
}

if (!(command in commands)) {
  console.error(`usage: node scripts/run.mjs ${Object.keys(commands).join('|')}`)
  process.exit(2)
}
checkNode()
ensurePackages()
process.exit(await commands[command]())
