// Quantises a model in a process of its own and kills itself without warning when so much is done:
//   tsx quantize-child.ts SOURCE TARGET [FRACTION]
import { quantizeModel } from '../../main/engine/quantize-model.ts'

const [source, target, fraction = '2'] = process.argv.slice(2)
await quantizeModel(source, target, {
  onProgress: (progress) => {
    if (progress.fraction >= Number(fraction)) process.kill(process.pid, 'SIGKILL')
  },
})
console.log('done')
