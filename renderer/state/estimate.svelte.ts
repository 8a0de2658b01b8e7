import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import { t, tn } from '../strings.ts'
import { bytesText } from './bytes.ts'
import { spokenTime } from './time.ts'

export type Estimate = { ms?: number; bytes: number }

const delayMs = 50

/** How long what the form asks for will take, and how much room. Asked for a moment after the last change. */
export class EstimateState {
  #known = $state.raw<(Estimate & { count: number }) | undefined>()
  readonly #ask: (request: GenerateRequestInput) => Promise<Estimate>
  #timer: ReturnType<typeof setTimeout> | undefined
  #turn = 0
  #asked = ''

  constructor(ask: (request: GenerateRequestInput) => Promise<Estimate>) {
    this.#ask = ask
  }

  /** "about 41 s · 1 picture · 1.2 MB"; empty while nothing is known. */
  readonly text = $derived.by(() => {
    if (!this.#known) return ''
    const { ms, bytes, count } = this.#known
    const time = ms === undefined ? t('timing after the first image') : t('about {time}', { time: spokenTime(ms) })
    return [time, tn(count, '{n} picture', '{n} pictures'), bytesText(bytes)].join(' · ')
  })

  /** Words and seed cost no time; `reason` is another one to ask again. */
  changed(request: GenerateRequestInput, reason?: string): void {
    const key = JSON.stringify([{ ...request, prompt: '', negativePrompt: '', seed: 0 }, reason])
    if (key === this.#asked) return
    this.#asked = key
    clearTimeout(this.#timer)
    const turn = ++this.#turn
    this.#timer = setTimeout(() => {
      this.#ask(request).then(
        (estimate) => {
          if (turn === this.#turn) this.#known = { ...estimate, count: request.count ?? 1 }
        },
        // What is wrong with the request Generate will say.
        () => {
          if (turn !== this.#turn) return
          this.#known = undefined
          this.#asked = ''
        },
      )
    }, delayMs)
  }
}
