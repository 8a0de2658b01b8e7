import { spawn } from 'node:child_process'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { launch, resolveElectron, rootArguments, runtimeEnv } from './electron-runtime.ts'

// `npm start` opens the built application; `npm run dev` lets electron-vite build, watch and reload it.

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const args = process.argv.slice(2)

if (args.includes('--dev')) {
  const runtime = await resolveElectron()
  const child = spawn(
    process.execPath,
    [join(root, 'node_modules/electron-vite/bin/electron-vite.js'), 'dev', '--watch', '--', ...rootArguments()],
    { cwd: root, stdio: 'inherit', env: { ...process.env, ...runtimeEnv(runtime), ELECTRON_EXEC_PATH: runtime.path } },
  )
  child.on('exit', (code) => process.exit(code ?? 1))
} else {
  process.exit(await launch(args))
}
