const kept = 100

/** Prompts that pictures were made with, newest first, and a way through them from the one that is being written. */
export class PromptHistory {
  all = $state.raw<readonly string[]>([])
  /** Where in the list the form stands; −1 is what the person is writing. */
  #place = -1
  #draft = ''

  /** One that is used again moves to the front. */
  used(prompt: string): void {
    const words = prompt.trim()
    if (words === '') return
    this.all = [words, ...this.all.filter((one) => one !== words)].slice(0, kept)
    this.#place = -1
  }

  /** Older (1) or newer (−1) than what is shown; undefined at either end. */
  step(direction: 1 | -1, shown: string): string | undefined {
    const standing = this.#place < 0 ? this.#draft : this.all[this.#place]
    // What was typed since is a draft of its own.
    if (this.#place < 0 || shown !== standing) {
      this.#place = -1
      this.#draft = shown
    }
    let place = this.#place + direction
    while (place >= 0 && place < this.all.length && this.all[place] === shown) place += direction
    if (place < -1 || place >= this.all.length || place === this.#place) return undefined
    this.#place = place
    return place < 0 ? this.#draft : this.all[place]
  }
}
