import { readFileSync, readdirSync } from 'node:fs'

/** The engine's process: the child of `parent` that runs our engine file, or Electron's name for such a process. */
export function enginePid(parent: number): number {
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const isChild = new RegExp(`^PPid:\\s+${parent}$`, 'm').test(readFileSync(`/proc/${name}/status`, 'utf8'))
      if (isChild && /engine\.cjs|node\.mojom\.NodeService/.test(readFileSync(`/proc/${name}/cmdline`, 'utf8')))
        return Number(name)
    } catch {
      // It ended while we looked.
    }
  }
  throw new Error('the engine is not running')
}

/** Holds the engine where it is, so that what a test does next happens during the job however slow the machine is. */
export function holdEngine(parent: number): { pid: number; release: () => void } {
  const pid = enginePid(parent)
  process.kill(pid, 'SIGSTOP')
  return { pid, release: () => void process.kill(pid, 'SIGCONT') }
}
