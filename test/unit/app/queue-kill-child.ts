import { Jobs } from '../../../main/app/jobs.ts'
import { Pace } from '../../../main/app/pace.ts'
import { filled } from './jobs-desk.ts'

// Changes a queue as fast as it can, says what is done, and is killed in the middle by the test that started it.

const [folder] = process.argv.slice(2)
const say = (line: string) => void process.stdout.write(`${line}\n`)

const jobs = await Jobs.open({
  file: `${folder}/queue.jsonl`,
  checkpointFolder: `${folder}/checkpoints`,
  engine: {
    async *run({ id }) {
      yield { type: 'finished', jobId: id }
    },
    cancel: () => {},
  },
  library: { add: () => Promise.reject(new Error('no pictures here')) },
  pace: new Pace(),
  folderOf: async () => '',
  adapterFileOf: async (id) => id,
  settings: () => ({}),
  emit: () => {},
  onImage: () => {},
  onCrash: () => {},
  freeBytes: async () => undefined,
  log: { info: () => {}, warn: () => {}, error: () => {} },
})
await jobs.pause('now')
for (let i = 0; ; i++) {
  const { jobIds } = await jobs.add(Array.from({ length: 1 + (i % 40) }, () => ({ request: filled(`job ${i}`) })))
  say(`+ ${jobIds.join(' ')}`)
  if (i % 3 === 0) {
    await jobs.move([jobIds[0]], 'top')
    say(`^ ${jobIds[0]}`)
  }
  if (i % 4 === 3) {
    await jobs.cancel(jobIds)
    await jobs.forget(jobIds)
    say(`- ${jobIds.join(' ')}`)
  }
}
