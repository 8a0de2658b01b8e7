import type { SafetensorsFile } from '../checkpoint/safetensors.ts'
import type { AdapterFile, AdapterInfo, GuidanceFile, ModelShape, Verdict } from './types.ts'

/** Tensors beside the sites, by their names, with the number of dimensions. */
const common = {
  'guidance.frequencies': 1,
  'guidance.phases': 1,
  'guidance.linear_1.weight': 2,
  'guidance.linear_1.bias': 1,
  'guidance.linear_2.weight': 2,
  'guidance.linear_2.bias': 1,
  'guidance.norm.weight': 1,
  'guidance.norm.bias': 1,
  'time.weight': 2,
  'text.weight': 2,
} as const

/** A guidance-distillation adapter of ours against a model: see `GuidanceFile`. `info` gets its verdict. */
export function readGuidanceFile(
  { tensors, metadata }: SafetensorsFile,
  info: AdapterInfo,
  shape: ModelShape | undefined,
): AdapterFile {
  const end = (verdict: Verdict, guidance?: GuidanceFile): AdapterFile => {
    const used = guidance ? tensors.size : 0
    const whole = {
      ...info,
      ...{ role: 'guidance' as const, kinds: ['Guidance distillation'], matched: used, verdict },
      ...(guidance ? { guidanceRange: guidance.guidanceRange } : {}),
    }
    return {
      info: whole,
      tensors,
      parts: [],
      embeddings: [],
      ignored: guidance ? [] : [...tensors.keys()],
      ...(guidance ? { guidance } : {}),
    }
  }
  const width = Number(metadata.get('width') ?? NaN)
  const least = Number(metadata.get('guidance_min') ?? 1)
  const most = Number(metadata.get('guidance_max') ?? NaN)
  const sites = [...tensors.keys()].flatMap((name) => /^sites\.(.*)\.to_q\.weight$/.exec(name)?.[1] ?? [])
  const dims = (name: string) => tensors.get(name)?.shape ?? []
  const isSite = (site: string) => {
    const c = dims(`sites.${site}.to_q.weight`)[1]
    const of = (part: string) => dims(`sites.${site}.${part}`).join()
    const isSquare = ['to_k', 'to_v'].every((part) => of(`${part}.weight`) === `${width},${width}`)
    return (
      isSquare &&
      of('to_q.weight') === `${width},${c}` &&
      of('to_out.weight') === `${c},${width}` &&
      of('to_out.bias') === `${c}`
    )
  }
  const isWhole =
    Number.isInteger(width) &&
    width > 0 &&
    width % 2 === 0 &&
    width <= 4096 &&
    sites.length > 0 &&
    least >= 0 &&
    most > least &&
    most <= 100 &&
    Object.entries(common).every(([name, rank]) => dims(name).length === rank) &&
    dims('guidance.frequencies')[0] === width &&
    dims('time.weight')[0] === width &&
    dims('text.weight')[0] === width &&
    sites.every(isSite)
  if (!isWhole) {
    const message = `"${info.name}" says that it is a guidance adapter, but is not a whole one.`
    return end({ fit: 'refused', message, hint: 'Fetch the file again.' })
  }
  const layers = shape?.layers.unet
  if (layers) {
    const own = [...layers.keys()].flatMap((path) => /^(.*\.attn2)\.to_q$/.exec(path)?.[1] ?? [])
    const text = layers.get(`${sites[0]}.to_k`)?.weight[1]
    const time = layers.get('time_embedding.linear_2')?.weight[0]
    const fits =
      own.length === sites.length &&
      dims('text.weight')[1] === text &&
      dims('time.weight')[1] === time &&
      sites.every((site) => layers.get(`${site}.to_q`)?.weight[1] === dims(`sites.${site}.to_q.weight`)[1])
    if (!fits) {
      const message = `"${info.name}" was made for another model than this one.`
      return end({
        fit: 'wrong-family',
        message,
        hint: 'A guidance adapter goes with the one model that it was trained for.',
      })
    }
  }
  const message = `Guidance in one evaluation instead of two, from ${least} to ${most}.`
  return end({ fit: 'fits', message }, { width, guidanceRange: [least, most], sites, tensors })
}
