import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { bareName, checked, isObject, numberOf, samplerValues, type ForeignValue } from './foreign.ts'

// ComfyUI writes no recipe but the graph that was run: `prompt`, by node id its class and its inputs, where a link is
// [node id, output]. The recipe is found by walking from the saved picture back to a sampler and from there to its inputs.

type Node = { id: string; type: string; inputs: Record<string, unknown> }
type Graph = Map<string, Node>

/** A graph of more nodes than this was not drawn by a person; a path of more is a circle. */
const maxNodes = 5000
const maxPath = 200

/** Inputs by which conditioning, latents or a picture pass through a node. */
const textInputs = [
  'text',
  'text_g',
  'text_l',
  't5xxl',
  'clip_l',
  'clip_g',
  'prompt',
  'string',
  'value',
  'populated_text',
]
const passInputs = ['conditioning', 'conditioning_1', 'conditioning_2', 'conditioning_to', 'conditioning_from']
const latentInputs = ['latent_image', 'latent', 'samples', 'images', 'image', 'pixels']

/** The graph of `prompt`, or else of `workflow`, as one recipe; undefined when it is no such graph or samples nothing. */
export function fromComfy(
  prompt: Record<string, unknown> | undefined,
  workflow: Record<string, unknown> | undefined,
): RecalledRecipe | undefined {
  const graph = prompt ? promptGraph(prompt) : workflow ? workflowGraph(workflow) : undefined
  if (!graph || graph.size === 0 || graph.size > maxNodes) return undefined
  const sampler = firstSampler(graph)
  if (!sampler) return undefined
  const { inputs } = sampler
  const follow = (name: string) => linked(graph, inputs[name])
  // The custom samplers have noise, guidance and schedule in nodes of their own.
  const guider = follow('guider')
  const noise = follow('noise')
  const sigmas = follow('sigmas')
  const chosen = follow('sampler')
  const conditioned = guider ?? sampler
  const positiveInput = conditioned.inputs.positive ?? conditioned.inputs.conditioning
  const size = sizeNode(graph, inputs.latent_image ?? inputs.latent)
  const seed = plain(graph, inputs.seed ?? inputs.noise_seed ?? noise?.inputs.noise_seed ?? noise?.inputs.seed)
  const number = (value: unknown) => numberOf(plain(graph, value))
  const strength = number(inputs.denoise ?? sigmas?.inputs.denoise)
  const values: ForeignValue[] = [
    { key: 'Prompt', value: textAt(graph, positiveInput, 'positive'), field: 'prompt' },
    { key: 'Negative prompt', value: textAt(graph, conditioned.inputs.negative, 'negative'), field: 'negativePrompt' },
    { key: 'seed', value: numberOf(seed) ?? seed, field: 'seed' },
    { key: 'steps', value: number(inputs.steps ?? sigmas?.inputs.steps), field: 'steps' },
    { key: 'cfg', value: number(conditioned.inputs.cfg ?? inputs.cfg), field: 'guidanceScale' },
    { key: 'width', value: number(size?.inputs.width), field: 'width' },
    { key: 'height', value: number(size?.inputs.height), field: 'height' },
    // At full strength nothing was there to start from.
    ...(strength !== undefined && strength < 1
      ? [{ key: 'denoise', value: strength, field: 'strength' as const }]
      : []),
    ...samplerValues(
      plain(graph, inputs.sampler_name ?? chosen?.inputs.sampler_name),
      plain(graph, inputs.scheduler ?? sigmas?.inputs.scheduler),
      { sampler: 'sampler_name', schedule: 'scheduler' },
    ),
    ...leftOver(graph, [sampler, guider, noise, sigmas, chosen, size]),
  ]
  const { model, adapters } = modelChain(graph, conditioned.inputs.model ?? inputs.model ?? sigmas?.inputs.model)
  return checked({ origin: 'ComfyUI', values, ...(model ? { model } : {}), adapters })
}

function promptGraph(prompt: Record<string, unknown>): Graph {
  const graph: Graph = new Map()
  for (const [id, raw] of Object.entries(prompt).slice(0, maxNodes + 1)) {
    if (isObject(raw) && typeof raw.class_type === 'string' && isObject(raw.inputs))
      graph.set(id, { id, type: raw.class_type, inputs: raw.inputs })
  }
  return graph
}

/** The values of a node on the canvas have no names there: these are ComfyUI's own nodes, in the order of their fields. */
const widgets: Record<string, readonly string[]> = {
  KSampler: ['seed', '', 'steps', 'cfg', 'sampler_name', 'scheduler', 'denoise'],
  KSamplerAdvanced: ['', 'noise_seed', '', 'steps', 'cfg', 'sampler_name', 'scheduler'],
  CLIPTextEncode: ['text'],
  EmptyLatentImage: ['width', 'height'],
  EmptySD3LatentImage: ['width', 'height'],
  CheckpointLoaderSimple: ['ckpt_name'],
  UNETLoader: ['unet_name'],
  LoraLoader: ['lora_name', 'strength_model', 'strength_clip'],
  LoraLoaderModelOnly: ['lora_name', 'strength_model'],
  RandomNoise: ['noise_seed'],
  KSamplerSelect: ['sampler_name'],
  BasicScheduler: ['scheduler', 'steps', 'denoise'],
  CFGGuider: ['cfg'],
}

function workflowGraph({ nodes, links }: Record<string, unknown>): Graph {
  const graph: Graph = new Map()
  if (!Array.isArray(nodes)) return graph
  const from = new Map<unknown, [string, unknown]>()
  for (const link of Array.isArray(links) ? links.slice(0, 10 * maxNodes) : [])
    if (Array.isArray(link)) from.set(link[0], [String(link[1]), link[2]])
  for (const raw of nodes.slice(0, maxNodes + 1)) {
    if (!isObject(raw) || typeof raw.type !== 'string') continue
    const inputs: Record<string, unknown> = {}
    const values = Array.isArray(raw.widgets_values) ? raw.widgets_values : []
    widgets[raw.type]?.forEach((name, i) => {
      if (name !== '') inputs[name] = values[i]
    })
    for (const input of Array.isArray(raw.inputs) ? raw.inputs : []) {
      if (!isObject(input) || typeof input.name !== 'string') continue
      const link = from.get(input.link)
      if (link) inputs[input.name] = link
    }
    graph.set(String(raw.id), { id: String(raw.id), type: raw.type, inputs })
  }
  return graph
}

function linked(graph: Graph, value: unknown): Node | undefined {
  return Array.isArray(value) && value.length === 2 ? graph.get(String(value[0])) : undefined
}

/** A value, or that of the node it comes from when it is one that only holds a value. */
function plain(graph: Graph, value: unknown): unknown {
  for (let depth = 0; depth < 10; depth++) {
    const node = linked(graph, value)
    if (!node) return Array.isArray(value) ? undefined : value
    const { value: own, seed, int, float, number, string } = node.inputs
    value = own ?? seed ?? int ?? float ?? number ?? string
  }
  return undefined
}

function isSampler({ inputs }: Node): boolean {
  const isPlain = 'positive' in inputs && ('seed' in inputs || 'noise_seed' in inputs)
  return isPlain || ('guider' in inputs && 'noise' in inputs) || ('positive' in inputs && 'sampler' in inputs)
}

/** Of the samplers that lead to a saved picture, the first of the chain: the others only work its picture over. */
function firstSampler(graph: Graph): Node | undefined {
  const ends = [...graph.values()].filter(({ type }) => /save|preview/i.test(type))
  const reached = ends.map((end) => upstream(graph, end)).find((node) => node !== undefined)
  let sampler = reached ?? [...graph.values()].find(isSampler)
  for (let depth = 0; sampler && depth < maxPath; depth++) {
    const before = linked(graph, sampler.inputs.latent_image ?? sampler.inputs.latent)
    const earlier = before && (isSampler(before) ? before : upstream(graph, before))
    if (!earlier || earlier === sampler) break
    sampler = earlier
  }
  return sampler
}

function upstream(graph: Graph, from: Node): Node | undefined {
  return walk(graph, from, latentInputs, (node) => (node !== from && isSampler(node) ? node : undefined))
}

function sizeNode(graph: Graph, latent: unknown): Node | undefined {
  const start = linked(graph, latent)
  return start && walk(graph, start, latentInputs, (node) => ('width' in node.inputs ? node : undefined))
}

/** The first node, from this one on along the named inputs, for which `find` gives something. Each is seen once. */
function walk<T>(
  graph: Graph,
  from: Node,
  names: readonly string[],
  find: (node: Node) => T | undefined,
): T | undefined {
  const seen = new Set<string>()
  const waiting = [from]
  for (let node; (node = waiting.shift()) && seen.size < maxNodes;) {
    if (seen.has(node.id)) continue
    seen.add(node.id)
    const found = find(node)
    if (found !== undefined) return found
    for (const name of names) {
      const next = linked(graph, node.inputs[name])
      if (next) waiting.push(next)
    }
  }
  return undefined
}

/** The words that reach a conditioning input, through whatever combines or controls it on the way. */
function textAt(graph: Graph, link: unknown, side: 'positive' | 'negative'): string | undefined {
  const found: string[] = []
  const seen = new Set<string>()
  const waiting: unknown[] = [link]
  while (waiting.length > 0 && seen.size < maxNodes) {
    const node = linked(graph, waiting.shift())
    if (!node || seen.has(node.id)) continue
    seen.add(node.id)
    // Cleared conditioning says nothing, whatever words went into it.
    if (/zeroout/i.test(node.type)) continue
    const texts = textInputs.map((name) => node.inputs[name])
    found.push(...texts.filter((text): text is string => typeof text === 'string' && text.trim() !== ''))
    waiting.push(...texts.filter(Array.isArray), ...passInputs.map((name) => node.inputs[name]), node.inputs[side])
    if (found.length === 0)
      waiting.push(node.inputs.text_a, node.inputs.text_b, node.inputs.string_a, node.inputs.string_b)
  }
  const unique = [...new Set(found.map((text) => text.trim()))]
  return unique.length > 0 ? unique.join('\n') : undefined
}

/** From the sampler's model back through every LoRA to the checkpoint. */
function modelChain(graph: Graph, link: unknown): { model?: RecalledRecipe['model']; adapters: RecalledAdapter[] } {
  const adapters: RecalledAdapter[] = []
  let node = linked(graph, link)
  for (let depth = 0; node && depth < maxPath; depth++) {
    const { inputs } = node
    const add = (name: unknown, weight: unknown, textWeight: unknown = weight) => {
      const strength = numberOf(plain(graph, weight)) ?? 1
      if (typeof name !== 'string' || name === 'None' || strength === 0) return
      const text = numberOf(plain(graph, textWeight)) ?? strength
      adapters.unshift({ name: bareName(name), weight: strength, textWeight: text, start: 0, end: 1, ramp: 'flat' })
    }
    if ('lora_name' in inputs) add(plain(graph, inputs.lora_name), inputs.strength_model, inputs.strength_clip)
    // Loaders that hold several: { on, lora, strength } under any name.
    for (const value of Object.values(inputs))
      if (isObject(value) && 'lora' in value && value.on !== false) add(value.lora, value.strength, value.strengthTwo)
    const name = plain(graph, inputs.ckpt_name ?? inputs.unet_name ?? inputs.model_name)
    if (typeof name === 'string') return { model: { name: bareName(name) }, adapters }
    node = linked(graph, inputs.model)
  }
  return { adapters }
}

/** What the nodes that were read say besides, and which other nodes there are, for the person to read. */
function leftOver(graph: Graph, read: (Node | undefined)[]): ForeignValue[] {
  const known = [...Object.values(widgets).flat(), 'add_noise', 'positive', 'negative']
  const own = read.flatMap((node) =>
    Object.entries(node?.inputs ?? {})
      .filter(([name, value]) => !Array.isArray(value) && !known.includes(name))
      .map(([name, value]) => ({ key: `${node!.type}.${name}`, value })),
  )
  const types = [...new Set([...graph.values()].map(({ type }) => type))]
  return [...own, { key: 'Nodes', value: types.join(', ') }]
}
