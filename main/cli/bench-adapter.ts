import { mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SlotPlace } from '../../models/build.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import { expandWeights } from '../../models/quantize/expand.ts'
import { openAdapterFiles } from '../engine/adapters.ts'
import { physicalCores, type OpenNetworks } from '../engine/networks.ts'
import { openMatMul } from '../engine/quantize-matmul.ts'
import { usualSlots } from '../engine/variants.ts'
import type { LoadedAdapter } from '../pipeline/adapter-types.ts'
import { createSlots } from '../pipeline/slots.ts'
import type { FloatTensor, IdTensor } from '../pipeline/tensor.ts'

// What adapters cost: one and four of rank 32 on every matrix of the U-Net, and going over from one to another.

const rank = 32

export type AdapterCosts = {
  /** CPU seconds of an evaluation: the plain network, with one adapter, with four. */
  plainS: number
  oneS: number
  fourS: number
  /** Seconds until the next evaluation can start: with a file read anew, and with one used before. */
  coldSwapS: number
  warmSwapS: number
  /** Opening the network with slots, once. */
  openS: number
  /** What a program without slots does instead: adding the adapter to all weights, expanding and loading them. */
  remergeS: number
}

type Inputs = Record<string, FloatTensor | IdTensor>
type Timed = (action: () => Promise<unknown>) => Promise<{ wall: number; cpu: number }>

/** Measures on a model that is open already; ratios come from runs in turns, because machines are busy with other things, too. */
export async function adapterCosts(
  networks: OpenNetworks,
  inputs: Inputs,
  runs: number,
  timed: Timed,
): Promise<AdapterCosts> {
  const folder = await mkdtemp(join(tmpdir(), 'vignette-bench-adapters-'))
  const files = openAdapterFiles(networks.folder)
  try {
    const places = (await networks.slots('unet')).filter(({ group }) => usualSlots.has(group))
    const paths: string[] = []
    for (let i = 0; i < 7; i++) paths.push(await writeAdapter(join(folder, `adapter-${i}.safetensors`), places, i))
    await networks.run('unet', inputs, ['out_sample'])
    const open = () => networks.use('unet', { slots: usualSlots })
    const slots = createSlots('unet', await open())
    const opening = await timed(() => networks.preload(['unet']))
    const load = async (file: string) => (await files.load(file)).adapter as LoadedAdapter
    const feeds = async (...adapters: LoadedAdapter[]) => ({
      ...inputs,
      ...(await slots.inputs([new Map(adapters.map((adapter) => [adapter, 0.8]))])),
    })
    const run = (more: Inputs) => networks.run('unet', more, ['out_sample'])

    const all = await Promise.all(paths.slice(0, 4).map(load))
    const [one, four] = [await feeds(all[0]), await feeds(...all)]
    const times = { plain: [] as number[], one: [] as number[], four: [] as number[] }
    for (let i = 0; i <= runs; i++) {
      await networks.use('unet')
      const plain = await timed(() => run(inputs))
      await open()
      const withOne = await timed(() => run(one))
      const withFour = await timed(() => run(four))
      if (i === 0) continue // the first runs pack and grow
      times.plain.push(plain.cpu)
      times.one.push(withOne.cpu)
      times.four.push(withFour.cpu)
    }
    // What a swap takes before the evaluation, and what its first evaluation takes longer than its next.
    const swap = async (file: string) => {
      let more: Inputs = {}
      const before = await timed(async () => (more = await feeds(await load(file))))
      const first = await timed(() => run(more))
      const next = await timed(() => run(more))
      return before.wall + Math.max(0, first.cpu - next.cpu)
    }
    const [cold, warm]: [number[], number[]] = [[], []]
    for (const file of paths.slice(4)) cold.push(await swap(file))
    for (const file of paths.slice(1, 4)) warm.push(await swap(file))
    return {
      ...{ plainS: least(times.plain), oneS: least(times.one), fourS: least(times.four) },
      ...{ coldSwapS: middle(cold), warmSwapS: middle(warm), openS: opening.wall },
      remergeS: await remerge(networks, all[0], folder, timed),
    }
  } finally {
    await files.release()
    await rm(folder, { recursive: true, force: true })
  }
}

export type BatchCosts = {
  /** Seconds on the clock for four pictures, each with an adapter of its own: one after the other, and as one batch. */
  singlesS: number
  batchS: number
}

/** Whole pictures, from the prompt to the PNG. */
export async function batchCosts(
  networks: OpenNetworks,
  side: number,
  runs: number,
  timed: Timed,
): Promise<BatchCosts> {
  const { runJob } = await import('../engine/job.ts')
  const { checkRequest, fillDefaults } = await import('../engine/request.ts')
  const folder = await mkdtemp(join(tmpdir(), 'vignette-bench-batch-'))
  try {
    const places = (await networks.slots('unet')).filter(({ group }) => usualSlots.has(group))
    const files: string[] = []
    for (let i = 0; i < 4; i++) files.push(await writeAdapter(join(folder, `adapter-${i}.safetensors`), places, i, 8))
    const asked = { prompt: 'a red barn at dusk', width: side, height: side, seed: 7, preview: 'off' }
    const { manifest, folder: modelFolder } = networks
    const request = fillDefaults(checkRequest(asked), manifest)
    const pictures = files.map((file, i) => {
      const { adapters } = checkRequest({ ...asked, adapters: [{ file, weight: 0.8 }] })
      return { prompt: `${asked.prompt}, ${i}`, seed: i, adapters }
    })
    const draw = async (job: object) => {
      for await (const event of runJob({ id: 'bench', modelFolder, request, ...job }, networks)) void event
    }
    const singles = async () => {
      for (const picture of pictures) await draw({ request: { ...request, ...picture } })
    }
    const times = { singles: [] as number[], batch: [] as number[] }
    for (let i = 0; i <= runs; i++) {
      const [apart, together] = [await timed(singles), await timed(() => draw({ batch: pictures }))]
      if (i === 0) continue // the first opens networks
      times.singles.push(apart.wall)
      times.batch.push(together.wall)
    }
    return { singlesS: least(times.singles), batchS: least(times.batch) }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const least = (values: readonly number[]) => Math.min(...values)
const middle = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]

/** A file as kohya's trainer writes it, of small numbers. */
async function writeAdapter(file: string, places: readonly SlotPlace[], seed: number, r = rank): Promise<string> {
  const tensors = places.flatMap(({ path, inputs, outputs }) => {
    const module = `lora_unet_${path.replaceAll('.', '_')}`
    return [
      { name: `${module}.lora_down.weight`, dtype: 'F16' as const, shape: [r, inputs] },
      { name: `${module}.lora_up.weight`, dtype: 'F16' as const, shape: [outputs, r] },
    ]
  })
  const numbers = Uint16Array.from({ length: 4096 }, (_, i) => floatToHalf(0.02 * Math.sin(seed * 7 + i * 12.9898)))
  await writeSafetensors(file, tensors, ({ shape }) => {
    const data = new Uint16Array(shape[0] * shape[1])
    for (let at = 0; at < data.length; at += numbers.length) data.set(numbers.subarray(0, data.length - at), at)
    return [new Uint8Array(data.buffer)]
  })
  return file
}

/** The adapter into every weight it changes, the 4-bit file expanded anew, the network loaded: once for every change. */
async function remerge(networks: OpenNetworks, adapter: LoadedAdapter, scratch: string, timed: Timed): Promise<number> {
  const { folder, manifest } = networks
  const { matMul, release } = await openMatMul(physicalCores())
  try {
    const merging = await timed(async () => {
      for (const { rank: r, down, up } of adapter.layers.unet?.values() ?? []) {
        await matMul(up.data, [r, up.shape[1]], down.data, [r, down.shape[1]], { transposeA: true })
      }
    })
    const unet = (await readParts(folder)).find(({ part }) => part === 'unet')
    let expanding = { wall: 0 }
    const { bavail, bsize } = await statfs(scratch)
    if (unet?.part === 'unet' && manifest.storage === 'int4' && bavail * bsize > 4e9) {
      const source = join(folder, [...unet.tensors.values()][0].file)
      const target = join(scratch, 'expanded.safetensors')
      expanding = await timed(() => expandWeights(source, target, { config: unet.config, matMul }))
    }
    await networks.use('unet')
    await networks.release()
    const loading = await timed(() => networks.preload(['unet']))
    return merging.wall + expanding.wall + loading.wall
  } finally {
    await release()
  }
}
