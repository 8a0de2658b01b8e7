// Imports a checkpoint in a process of its own and kills itself without warning when so much is done:
//   tsx convert-child.ts SOURCE TARGET [FRACTION]
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'

const [source, target, fraction = '2'] = process.argv.slice(2)
await convertCheckpoint(source, target, {
  onProgress: (progress) => {
    if (progress.fraction >= Number(fraction)) process.kill(process.pid, 'SIGKILL')
  },
})
console.log('done')
