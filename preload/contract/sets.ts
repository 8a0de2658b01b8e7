import * as z from 'zod'
import { limits } from '../limits.ts'
import { StudioSlot } from './settings.ts'

/** A slot as a set keeps it: found again by the adapter's content, else by the name of its file. */
export const SetSlot = StudioSlot.omit({ id: true, isAutomatic: true }).extend({
  /** In the library of this computer, when it was last seen there. */
  id: z.string().optional(),
  fileName: z.string(),
  /** Hash of its tensors. */
  sha256: z.string().optional(),
  triggers: z.array(z.string()),
})
export type SetSlot = z.infer<typeof SetSlot>

/** A strip of adapters with weights and timing, under a name. */
export const AdapterSet = z.object({
  id: z.string(),
  name: z.string().min(1).max(limits.maxSetName),
  createdAt: z.number(),
  slots: z.array(SetSlot).min(1).max(limits.maxAdapters),
})
export type AdapterSet = z.infer<typeof AdapterSet>

const name = AdapterSet.shape.name

export const setRequests = {
  'sets:list': { input: z.void(), output: z.array(AdapterSet) },
  /** With `id` the set of that id is replaced. */
  'sets:save': {
    input: z.object({ name, slots: z.array(StudioSlot).min(1).max(limits.maxAdapters), id: z.string().optional() }),
    output: AdapterSet,
  },
  'sets:rename': { input: z.object({ id: z.string(), name }), output: AdapterSet },
  /** Gives what was removed, for `sets:restore`. */
  'sets:remove': { input: z.object({ id: z.string() }), output: AdapterSet },
  'sets:restore': { input: z.object({ set: AdapterSet }), output: z.void() },
  /** The set as slots of this library, and what it has that is not here. Nothing is put in the place of another. */
  'sets:slots': {
    input: z.object({ id: z.string(), model: z.string() }),
    output: z.object({
      slots: z.array(StudioSlot),
      missing: z.array(z.object({ name: z.string(), sha256: z.string().optional() })),
    }),
  },
  /** Asks the person where; nothing when they thought better of it. */
  'sets:export': { input: z.object({ id: z.string() }), output: z.object({ file: z.string().optional() }) },
  'sets:import': { input: z.object({ file: z.string() }), output: AdapterSet },
  /** The adapters that a picture was made with. */
  'sets:fromImage': { input: z.object({ imageId: z.string(), name, model: z.string() }), output: AdapterSet },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const setEvents = [z.object({ type: z.literal('sets:changed'), sets: z.array(AdapterSet) })] as const
