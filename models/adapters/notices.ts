import { familyByMetadata } from './family.ts'
import { firstNumbers } from './first-numbers.ts'
import type { Group } from './groups.ts'
import { speedNotice } from './presets.ts'
import type { AdapterInfo, AdapterPart } from './types.ts'

/** As many of the numbers in a file that say how strong its parts are as can be read in a moment. */
export async function strengthsOf(parts: readonly AdapterPart[]): Promise<number[]> {
  const stored = parts.flatMap(({ kind, scale }) =>
    'tensor' in scale && kind !== 'oft' && kind !== 'boft' ? scale.tensor : [],
  )
  const stride = Math.max(1, Math.ceil(stored.length / 16))
  return firstNumbers(stored.filter((_, i) => i % stride === 0))
}

/** Things worth saying that stop nothing. */
export function noticesOf(
  strengths: readonly number[],
  groups: readonly Group[],
  parts: readonly AdapterPart[],
  info: AdapterInfo,
  metadata: ReadonlyMap<string, string>,
): string[] {
  const notices: string[] = []
  const zeros = strengths.filter((value) => value === 0).length
  if (zeros > 0 && zeros === strengths.length)
    notices.push('Its own strength (alpha) is zero, so it changes nothing at any weight.')
  else if (zeros > 0) notices.push('The strength (alpha) of some of its parts is zero: those change nothing.')
  if (groups.some(({ alpha, scale, tensors }) => alpha && scale && tensors.down))
    notices.push('It says twice how strong it is (alpha and scale); other programs may read it another way.')
  const speed = speedNotice(info, parts.filter(({ target }) => target === 'unet').length, strengths)
  if (speed) notices.push(speed)
  const said = familyByMetadata(metadata)
  if (said && info.familyName !== undefined && info.family !== undefined && said.name !== info.familyName)
    notices.push(`It says that it was made for ${said.name}, but it is built for ${info.familyName}.`)
  return notices
}
