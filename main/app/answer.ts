import * as z from 'zod'
import { reportError, VignetteError } from '../../models/errors.ts'
import { requests, type Input, type Output, type Reply, type RequestName } from '../../preload/contract.ts'

/** One function per request of the contract. Its input is validated and has its defaults filled in. */
export type Handlers = {
  [K in RequestName]: (input: z.output<(typeof requests)[K]['input']>) => Output<K> | Promise<Output<K>>
}

/** The part of them for the requests of one area. */
export type HandlersOf<R> = Pick<Handlers, keyof R & RequestName>

/** What the tests and the window hold in their hands: a request by name, a reply as data. */
export type Answer = <K extends RequestName>(name: K, raw: Input<K>) => Promise<Reply<Output<K>>>

/**
 * The one door. Electron, the test host and unit tests all enter here. `onFault` hears of what nobody expected, so that
 * it can be written to the log; the reply is the same with and without.
 */
export async function answer<K extends RequestName>(
  handlers: Handlers,
  name: K,
  raw: unknown,
  onFault: (name: string, error: unknown) => void = () => {},
): Promise<Reply<Output<K>>> {
  try {
    // The name comes from outside too: a request that is not ours must not find `constructor` and the like.
    if (!Object.hasOwn(requests, name)) throw new VignetteError('bad-request', `There is no request "${String(name)}".`)
    const parsed = requests[name].input.safeParse(raw)
    if (!parsed.success) throw new VignetteError('bad-request', `${name}: ${z.prettifyError(parsed.error)}`)
    return { ok: true, value: (await handlers[name](parsed.data as never)) as Output<K> }
  } catch (error) {
    const report = reportError(error)
    if (report.code === 'internal') onFault(name, error)
    return { ok: false, error: report }
  }
}
