import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { QueueJournal } from '../../../main/app/queue-journal.ts'

const child = fileURLToPath(new URL('queue-kill-child.ts', import.meta.url))

/** What a queue that changes all the time said was done, until it was killed after so many milliseconds. */
function changeAndKill(folder: string, ms: number): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const process = spawn(globalThis.process.execPath, ['--import', 'tsx', child, folder], { stdio: 'pipe' })
    let said = ''
    let errors = ''
    process.stderr.on('data', (data) => (errors += data))
    process.stdout.on('data', (data: Buffer) => {
      if (said === '') setTimeout(() => process.kill('SIGKILL'), ms)
      said += data.toString()
    })
    process.once('exit', (_, signal) => {
      const lines = said.split('\n')
      lines.pop() // what was not said to its end
      if (signal === 'SIGKILL') resolve(lines)
      else reject(new Error(errors))
    })
  })
}

it('has everything that was said to be done after a kill at any moment', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vignette-kill-'))
  try {
    const there = new Set<string>()
    const gone = new Set<string>()
    // On top of each other: each start goes on with what the one before left.
    for (const ms of [40, 90, 170, 230]) {
      const lines = await changeAndKill(folder, ms)
      expect(lines.length).toBeGreaterThan(0)
      let top = ''
      for (const line of lines) {
        const [what, ...ids] = line.split(' ')
        if (what === '^') top = ids[0]
        for (const id of ids) {
          if (what === '+') there.add(id)
          else if (what === '-' && there.delete(id)) gone.add(id)
        }
      }
      const { jobs, damaged } = await QueueJournal.read(join(folder, 'queue.jsonl'))
      const found = new Map(jobs.map((job) => [job.id, job]))
      expect([...there].filter((id) => !found.has(id))).toEqual([])
      expect([...gone].filter((id) => found.has(id))).toEqual([])
      expect(damaged).toBe(0)
      // Batches are there as a whole or not at all.
      const sizes = new Map<string, number>()
      for (const { batchId } of jobs) sizes.set(batchId, (sizes.get(batchId) ?? 0) + 1)
      for (const { batchId, batchSize } of jobs) expect(sizes.get(batchId)).toBe(batchSize)
      if (found.has(top)) expect(found.get(top)!.rank).toBeLessThan(0)
    }
    expect(there.size).toBeGreaterThan(100)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
