import type { PromptReading } from '../../preload/contract/prompt.ts'

type Readings = { prompt: PromptReading; negativePrompt: PromptReading }

const delayMs = 60

/** What the model reads of the prompts in the form. Asked for a moment after the last key, so that typing waits for nothing. */
export class ReadingState {
  #known = $state.raw<(Readings & { texts: readonly [string, string] }) | undefined>()
  readonly #ask: (prompt: string, negativePrompt: string) => Promise<Readings>
  #timer: ReturnType<typeof setTimeout> | undefined
  #turn = 0

  constructor(ask: (prompt: string, negativePrompt: string) => Promise<Readings>) {
    this.#ask = ask
  }

  readonly prompt = $derived(this.#known?.prompt)
  readonly negativePrompt = $derived(this.#known?.negativePrompt)

  /** Places of an older text point to nothing in the new one; until the answer is there, only what is certain is said. */
  of(which: 'prompt' | 'negativePrompt', text: string): PromptReading | undefined {
    const known = this.#known
    if (!known) return undefined
    const reading = known[which]
    if (known.texts[which === 'prompt' ? 0 : 1] === text) return reading
    return { ...reading, unreadFrom: undefined }
  }

  changed(prompt: string, negativePrompt: string): void {
    clearTimeout(this.#timer)
    const turn = ++this.#turn
    this.#timer = setTimeout(() => {
      this.#ask(prompt, negativePrompt).then(
        (readings) => {
          if (turn === this.#turn) this.#known = { ...readings, texts: [prompt, negativePrompt] }
        },
        // A prompt that cannot be counted is still a prompt: the meter is empty then.
        () => turn === this.#turn && (this.#known = undefined),
      )
    }, delayMs)
  }
}
