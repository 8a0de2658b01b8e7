import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import { promptMarks, type AdapterMark } from '../../preload/prompt-marks.ts'
import { canUse } from './adapters.svelte.ts'
import { tidyWeight } from './weights.ts'

/** What of a prompt turned into slots. */
export type TakenTags = {
  /** The prompt without the tags that were found. */
  prompt: string
  taken: { record: AdapterRecord; weight: number; textWeight: number; start: number; end: number }[]
  /** Names that no usable adapter here has; their tags stay. */
  unknown: string[]
  /** Adapters that no slot is free for; theirs stay, too. */
  crowded: string[]
}

/** Takes `<lora:name:0.7@0.2-0.8>` out of a prompt where the library has the adapter: by file, name or the first digits of its hash. */
export function takeAdapterTags(
  prompt: string,
  records: readonly AdapterRecord[],
  hasRoom: (record: AdapterRecord) => boolean = () => true,
): TakenTags {
  const tags = promptMarks(prompt).filter((mark): mark is AdapterMark => mark.kind === 'adapter')
  const taken: TakenTags['taken'] = []
  const unknown = new Set<string>()
  const crowded = new Set<string>()
  let rest = ''
  let at = 0
  for (const { from, to, name, weight, textWeight, start, end } of tags) {
    const record = adapterNamed(name, records)
    if (!record) {
      unknown.add(name)
      continue
    }
    if (!taken.some((one) => one.record === record) && !hasRoom(record)) {
      crowded.add(record.name)
      continue
    }
    const isInside = start >= 0 && end <= 1 && start < end
    taken.push({
      record,
      weight: tidyWeight(weight),
      textWeight: tidyWeight(textWeight),
      ...(isInside ? { start, end } : { start: 0, end: 1 }),
    })
    rest = joined(rest, prompt.slice(at, from))
    at = to
  }
  rest = joined(rest, prompt.slice(at)).replace(/[\s,]+$/, '')
  return { prompt: taken.length > 0 ? rest : prompt, taken, unknown: [...unknown], crowded: [...crowded] }
}

export function adapterNamed(name: string, records: readonly AdapterRecord[]): AdapterRecord | undefined {
  const wanted = plain(name)
  const usable = records.filter(canUse)
  const hash = /^[0-9a-f]{8,64}$/i.test(name) ? name.toLowerCase() : undefined
  return (
    usable.find(({ fileName }) => plain(fileName) === wanted) ??
    usable.find((record) => plain(record.name) === wanted) ??
    (hash ? usable.find((record) => record.hash?.startsWith(hash)) : undefined)
  )
}

/** As tags write names: without the ending, and with _ for what a tag cannot hold. */
function plain(name: string): string {
  return name
    .replace(/\.(safetensors|pt|bin|ckpt)$/i, '')
    .replace(/[<>:,"\\\s_-]+/g, '_')
    .toLowerCase()
}

/** What stood before and after a tag, without the blanks and the comma that it leaves over. */
function joined(before: string, after: string): string {
  const left = before.replace(/[^\S\n]+$/, '')
  const isOpen = left === '' || /[,\n]$/.test(left)
  const right = after.replace(isOpen ? /^[^\S\n]*,?[^\S\n]*/ : /^[^\S\n]+/, '')
  const needsBlank = left !== '' && right !== '' && !left.endsWith('\n') && !/^[,\n]/.test(right)
  return left + (needsBlank ? ' ' : '') + right
}
