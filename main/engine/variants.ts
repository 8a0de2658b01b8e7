import { createHash } from 'node:crypto'
import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { buildNetworks, type Part, type SlotPlace } from '../../models/build.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import type { Dialect, SlotGroup } from '../../models/graph/graph.ts'
import type { NetworkName } from '../../models/manifest.ts'
import { replaceFile } from '../../models/replace-file.ts'

// Graphs for adapters: the same network over the same weight file with more inputs. They are built when they are wanted,
// which takes a moment, and lie on the disk only while ONNX Runtime reads them: one folder may be in use by several
// programs, and combinations are many.

/** What a network takes beside its usual inputs; see `GraphOptions`. */
export type GraphVariant = {
  slots?: ReadonlySet<SlotGroup>
  /** Every picture of a batch has weights of its own for the slots. */
  mixed?: boolean
  live?: ReadonlySet<string>
  guidance?: { width: number }
}

/** Names a variant; '' is the plain network. */
export function variantKey(variant: GraphVariant | undefined): string {
  if (!variant) return ''
  const { slots, mixed, live, guidance } = variant
  if (!slots?.size && !live?.size && !guidance) return ''
  const facts = [[...(slots ?? [])].sort(), mixed ?? false, [...(live ?? [])].sort(), guidance?.width ?? 0]
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 12)
}

/** Whether a graph of `open` does for `wanted`: idle slots are fed nothing that shows. */
export function serves(open: GraphVariant | undefined, wanted: GraphVariant): boolean {
  if (!open) return false
  const without = ({ live, mixed, guidance }: GraphVariant) =>
    variantKey({ slots: new Set(['time']), live, mixed, guidance })
  return without(open) === without(wanted) && [...(wanted.slots ?? [])].every((group) => open.slots?.has(group))
}

/** The slots that a graph of this variant has, of all that are possible. */
export function slotsIn(places: readonly SlotPlace[], variant: GraphVariant | undefined): SlotPlace[] {
  return places.filter(({ group }) => variant?.slots?.has(group))
}

/** The variant that most adapters want; the only one whose prepared form is kept. */
export const usualSlots: ReadonlySet<SlotGroup> = new Set(['attention', 'mlp'])

/**
 * Writes the graph of a network into `home`, the folder of its weights, for as long as `load` runs. `modelFolder` has the
 * configuration; the fast form of a unet lies elsewhere, with a table of its own.
 */
export async function withVariant<T>(
  {
    modelFolder,
    home,
    network,
    dialect,
  }: { modelFolder: string; home: string; network: NetworkName; dialect: Dialect },
  variant: GraphVariant,
  load: (file: string) => Promise<T>,
): Promise<T> {
  const { slots, mixed, live, guidance } = variant
  const part = await partIn(modelFolder, home, partOf(network))
  const built = buildNetworks([part], {
    dialect,
    keyStride: part.part === 'unet',
    ...(slots?.size ? { slots: { groups: slots, mixed } } : {}),
    live,
    guidance,
  })
  const graph = built.find(({ name }) => name === network)
  if (!graph) throw new Error(`${modelFolder}: no ${network}`)
  await sweep(home)
  const file = join(home, `.${network}.${variantKey(variant)}.${process.pid}.onnx`)
  try {
    await replaceFile(file, graph.onnx)
    return await load(file)
  } finally {
    await rm(file, { force: true })
  }
}

export const partOf = (network: NetworkName): AdapterTarget =>
  network === 'unet_shallow' ? 'unet' : (network as AdapterTarget)

async function partIn(modelFolder: string, home: string, name: AdapterTarget): Promise<Part> {
  const part = (await readParts(modelFolder)).find((each) => each.part === name)
  if (!part) throw new Error(`${modelFolder}: parts.json names no ${name}`)
  if (home === modelFolder) return part
  const file = [...part.tensors.values()][0].file
  const { tensors } = await readSafetensors(join(home, file))
  return { ...part, tensors: new Map([...tensors].map(([key, tensor]) => [key, { ...tensor, file }])) } as Part
}

/** Graphs that a killed program left. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!/^\..*\.onnx$/.test(name)) continue
    const file = join(folder, name)
    const { mtimeMs } = await stat(file).catch(() => ({ mtimeMs: Date.now() }))
    if (Date.now() - mtimeMs > 3_600_000) await rm(file, { force: true })
  }
}
