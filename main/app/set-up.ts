import { readAbout, recordAbout } from '../../models/checkpoint/about.ts'
import { reportError, type ErrorReport } from '../../models/errors.ts'
import { installStarter } from '../../models/starter/install.ts'

// Puts the starter model in place, in a process of its own: copying its weights and building its graphs takes seconds of
// calculation on the first start and a tenth of one on every other, which the window should not wait for.

export type SetUpResult = { error?: ErrorReport }

const { parentPort } = process as { parentPort?: { postMessage(message: unknown): void } }
const tell = (result: SetUpResult) => (parentPort ? parentPort.postMessage(result) : process.send?.(result))

async function setUp(modelsFolder: string): Promise<void> {
  const folder = await installStarter(modelsFolder)
  // What a later check of the weights compares with.
  if (!(await readAbout(folder))) await recordAbout(folder, { licence: 'Apache-2.0' })
}

setUp(process.argv[2]).then(
  () => tell({}),
  (error: unknown) => tell({ error: reportError(error) }),
)
