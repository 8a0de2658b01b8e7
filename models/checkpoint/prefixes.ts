import type { StoredTensor, TensorTable } from '../graph/weights.ts'
import { unetRoots } from './names/unet-ldm.ts'
import { isVaeName } from './names/vae-ldm.ts'

/** A tensor under its name within one component, with the name it has in the file. */
export type NamedTensor = StoredTensor & { origin: string }

/** What detection looks at: the diffusion network's tensors without prefix, and all names as they are in the file. */
export type Evidence = { net: Map<string, NamedTensor>; all: TensorTable }

const netPrefixes = ['model.diffusion_model.', 'diffusion_model.', 'net.', 'model.', '']
const vaePrefixes = ['first_stage_model.', 'vae.', '']

/** Where text towers lie, most usual place first. The towers are told apart by it, and by nothing else. */
export const textPrefixes = {
  single: [
    'cond_stage_model.transformer.',
    'cond_stage_model.model.',
    'text_encoders.clip_l.transformer.',
    'text_encoders.clip_h.transformer.',
    'text_encoder.',
    'cond_stage_model.',
  ],
  first: ['conditioner.embedders.0.transformer.', 'text_encoders.clip_l.transformer.', 'text_encoder.'],
  second: [
    'conditioner.embedders.1.model.',
    'conditioner.embedders.1.transformer.',
    'text_encoders.clip_g.transformer.',
    'text_encoder_2.',
  ],
} as const

const isUnetName = (name: string) => unetRoots.some((root) => name.startsWith(`${root}.`))

/** The diffusion network's tensors without their prefix, whichever it has; other bare names are kept as they are. */
export function diffusionTensors(tensors: TensorTable): Map<string, NamedTensor> {
  return strip(
    tensors,
    netPrefixes,
    (name, prefix) => prefix !== '' || isUnetName(name),
    (name) => !name.startsWith('model_ema.'),
  )
}

/** The autoencoder's tensors without their prefix. */
export function vaeTensors(tensors: TensorTable): Map<string, NamedTensor> {
  return strip(tensors, vaePrefixes, isVaeName, isVaeName)
}

/** The tensors of one text tower without their prefix. */
export function textTensors(tensors: TensorTable, prefixes: readonly string[]): Map<string, NamedTensor> {
  return strip(
    tensors,
    prefixes,
    () => true,
    (_, prefix) => prefix !== '',
  )
}

/**
 * Merged files mix prefixes: part of a network may have one and part another, and a name may come twice. Each prefix
 * has as many votes as names it carries; where two prefixes give the same name the one with more votes wins.
 */
function strip(
  tensors: TensorTable,
  prefixes: readonly string[],
  votes: (name: string, prefix: string) => boolean,
  keep: (name: string, prefix: string) => boolean,
): Map<string, NamedTensor> {
  const groups = new Map(prefixes.map((prefix) => [prefix, { count: 0, members: [] as [string, NamedTensor][] }]))
  for (const [origin, tensor] of tensors) {
    const prefix = prefixes.find((candidate) => origin.startsWith(candidate))
    const group = prefix === undefined ? undefined : groups.get(prefix)
    if (prefix === undefined || !group) continue
    const name = origin.slice(prefix.length)
    if (votes(name, prefix)) group.count++
    if (keep(name, prefix)) group.members.push([name, { ...tensor, origin }])
  }
  // The last entry of a name counts. Equal votes: the more usual prefix, which is listed first, comes last.
  const ascending = [...groups.values()].reverse().sort((a, b) => a.count - b.count)
  return new Map(ascending.flatMap((group) => group.members))
}
