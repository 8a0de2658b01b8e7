import { reportError, type ErrorReport } from '../../models/errors.ts'
import { installStarter } from '../../models/starter/install.ts'

// Puts the starter model in place, in a process of its own: copying its weights and building its graphs takes seconds of
// calculation on the first start and a tenth of one on every other, which the window should not wait for.

export type SetUpResult = { error?: ErrorReport }

const { parentPort } = process as { parentPort?: { postMessage(message: unknown): void } }
const tell = (result: SetUpResult) => (parentPort ? parentPort.postMessage(result) : process.send?.(result))

installStarter(process.argv[2]).then(
  () => tell({}),
  (error: unknown) => tell({ error: reportError(error) }),
)
