import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import { isReserved, preferredWeight } from './weights.ts'

/** Plain things that every model knows, so that what is seen is what the adapter does. Not translated: models read English. */
const plainThings = ['a cat sitting, plain background', 'a bear in a forest', 'a duck on a beach at sunset']
const draftSteps = 4
const sampleSeed = 20

/** Three small pictures that show what an adapter does, each of the same seed for every adapter, so that they compare. */
export function sampleRequests(record: AdapterRecord, model: string): GenerateRequestInput[] {
  const { id, triggers, preset } = record
  const words = isReserved(record.role) ? [] : triggers.slice(0, 2)
  return plainThings.map((thing, i) => ({
    prompt: [...words, thing].join(', '),
    model,
    seed: sampleSeed + i,
    count: 1,
    // One that is made for few steps says how many.
    ...(preset ? {} : { steps: draftSteps }),
    adapters: [{ file: id, weight: preferredWeight(record) }],
    preview: 'fast' as const,
  }))
}
