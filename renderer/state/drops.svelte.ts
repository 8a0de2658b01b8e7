import { tn } from '../strings.ts'

export type FileKind = 'adapter' | 'model' | 'image' | 'text' | 'recipe' | 'folder' | 'unknown'
/** `file` is where it lies on disk, empty when it lies nowhere; `data` is there for what was dropped or pasted. */
export type DroppedFile = { file: string; name: string; data?: File; isFolder?: boolean }

/** A place to drop files on, and what it does with them. */
export type DropTarget = {
  id: string
  label: string
  note?: string
  kinds: readonly FileKind[]
  /** Another place's act with a step more: a place of its own to drop on, but nothing to ask about. */
  isVariant?: boolean
  take: (files: DroppedFile[], options: { isLink: boolean }) => void
}

/** What is known of a file while it is only dragged: its type, if the system knows one. */
type DraggedItem = { kind: string; type: string }

const byEnding: readonly (readonly [FileKind, readonly string[]])[] = [
  ['adapter', ['safetensors', 'pt', 'pth', 'bin']],
  ['model', ['ckpt', 'gguf', 'onnx']],
  ['image', ['png', 'jpg', 'jpeg', 'webp', 'avif', 'gif', 'bmp', 'tif', 'tiff']],
  ['text', ['txt', 'md', 'markdown']],
  ['recipe', ['json', 'vgset', 'vgrecipe']],
]
/** A weight file of this size is a whole model, not an adapter. */
const modelBytes = 1.5e9

export function nameOf(file: string): string {
  return file.split(/[\\/]/).at(-1) || file
}

export function kindOf({ name, data, isFolder }: Pick<DroppedFile, 'name' | 'data' | 'isFolder'>): FileKind {
  if (isFolder) return 'folder'
  const ending = /\.([^.]+)$/.exec(name)?.[1].toLowerCase() ?? ''
  const kind = byEnding.find(([, endings]) => endings.includes(ending))?.[0]
  if (kind === 'adapter' && data && data.size > modelBytes) return 'model'
  if (kind === undefined && data?.type.startsWith('image/')) return 'image'
  return kind ?? 'unknown'
}

/** The kinds a dragged thing may turn out to be. */
export function possibleKinds({ kind, type }: DraggedItem): FileKind[] {
  if (kind !== 'file') return []
  if (type.startsWith('image/')) return ['image']
  if (type === 'application/json') return ['recipe']
  if (type.startsWith('text/')) return ['text', 'unknown']
  return ['adapter', 'model', 'folder', 'recipe', 'text', 'unknown'] // the system knows no type for these
}

/** What can be done with files that are dragged, pasted or chosen. */
export class DropsState {
  all = $state.raw<DropTarget[]>([])
  /** The same, not as a signal: where an effect ends, a signal still has the value it had when that effect ran. */
  #list: readonly DropTarget[] = []
  /** What is over the window now. */
  dragged = $state.raw<readonly DraggedItem[]>([])
  /** Alt is held: files stay where they lie. */
  isLink = $state(false)
  /** Files for which the person has to say what is meant. */
  asked = $state.raw<DroppedFile[]>([])
  /** What was done with several files of different kinds. */
  #say: (text: string) => void

  /** The places that accept at least one of what is dragged; all, when nothing is known of it. */
  readonly zones = $derived.by(() => {
    const kinds = this.dragged.flatMap(possibleKinds)
    return this.all.filter((target) => target.kinds.some((kind) => kinds.includes(kind)) || accepts(target, kinds))
  })
  readonly isOpen = $derived(this.dragged.some(({ kind }) => kind === 'file'))

  constructor(say: (text: string) => void = () => {}) {
    this.#say = say
  }

  /** Returns what takes it away again. */
  register(target: DropTarget): () => void {
    this.#setAll([...this.#list.filter(({ id }) => id !== target.id), target])
    return () => this.#setAll(this.#list.filter((one) => one !== target))
  }

  #setAll(targets: readonly DropTarget[]): void {
    this.#list = targets
    this.all = [...targets]
  }

  /** Those that accept a file. */
  targetsFor(file: DroppedFile): DropTarget[] {
    const kind = kindOf(file)
    return this.all.filter(({ kinds }) => kinds.includes(kind))
  }

  /**
   * Files dropped on a place, or anywhere when it is left out. Each goes to that place if it accepts it or nobody does, so
   * that a refusal is said; the others go to the first place that accepts them, variants last.
   */
  take(files: readonly DroppedFile[], targetId?: string, isLink = false): void {
    if (files.length === 0) return
    const wanted = this.all.find(({ id }) => id === targetId)
    const taken: { target: DropTarget; files: DroppedFile[] }[] = []
    const left: DroppedFile[] = []
    for (const file of files) {
      const able = this.targetsFor(file)
      const fallback =
        this.all.find(({ kinds }) => kinds.includes('unknown')) ??
        this.all.find(({ kinds }) => kinds.includes('adapter'))
      const usual = able.find(({ isVariant }) => !isVariant) ?? able[0]
      const target = wanted && able.includes(wanted) ? wanted : (usual ?? wanted ?? fallback)
      if (!target) left.push(file)
      else {
        const group = taken.find((one) => one.target === target)
        if (group) group.files.push(file)
        else taken.push({ target, files: [file] })
      }
    }
    for (const { target, files } of taken) target.take(files, { isLink })
    if (left.length > 0)
      this.#say(
        tn(left.length, 'Nothing can be done with {names}.', 'Nothing can be done with {n} files: {names}.', {
          names: left.map(({ name }) => name).join(', '),
        }),
      )
    else if (taken.length > 1)
      this.#say(
        taken.map(({ target, files }) => `${target.label}: ${tn(files.length, '{n} file', '{n} files')}`).join(' · '),
      )
  }

  /** Files that were pasted or chosen: to the one place that accepts them, else the person says which. */
  offer(files: readonly DroppedFile[]): void {
    const able = this.#mainFor(files)
    if (able.length > 1) this.asked = [...files]
    else this.take(files, able[0]?.id)
  }

  /** The places to choose from for what was asked about. */
  readonly choices = $derived(this.#mainFor(this.asked))

  answer(targetId: string | undefined): void {
    const files = this.asked
    this.asked = []
    if (targetId !== undefined) this.take(files, targetId)
  }

  #mainFor(files: readonly DroppedFile[]): DropTarget[] {
    const kinds = files.map(kindOf)
    return this.all.filter((target) => !target.isVariant && target.kinds.some((kind) => kinds.includes(kind)))
  }

  /** "fox.png", "3 files". */
  namesOf(files: readonly DroppedFile[]): string {
    return files.length === 1 ? files[0].name : tn(files.length, '{n} file', '{n} files')
  }
}

function accepts(target: DropTarget, kinds: readonly FileKind[]): boolean {
  return kinds.includes('unknown') && target.kinds.includes('adapter')
}
