export type Toast = {
  id: number
  text: string
  tone: 'info' | 'good' | 'warn' | 'bad'
  action?: { label: string; run: () => void }
  ms: number
  at: number
}

const usualMs = 6000
const kept = 50
const shownAtOnce = 4

/** Short words that come and go by themselves, and the list of those that came. */
export class ToastsState {
  shown = $state.raw<Toast[]>([])
  /** Newest first. */
  past = $state.raw<Toast[]>([])
  /** How many have come since the list was looked at. */
  unseen = $state(0)
  #nextId = 1

  show(toast: Partial<Toast> & { text: string }): void {
    const full: Toast = { tone: 'info', ms: usualMs, ...toast, id: this.#nextId++, at: Date.now() }
    this.shown = [...this.shown, full].slice(-shownAtOnce)
    this.past = [full, ...this.past].slice(0, kept)
    this.unseen++
  }

  hide(id: number): void {
    this.shown = this.shown.filter((toast) => toast.id !== id)
  }

  clear(): void {
    this.shown = []
    this.past = []
    this.unseen = 0
  }
}
