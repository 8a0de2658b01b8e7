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

/** Short words that come and go by themselves, and the list of those that came. */
export class ToastsState {
  shown = $state.raw<Toast[]>([])
  /** Newest first. */
  past = $state.raw<Toast[]>([])
  #nextId = 1

  show(toast: Partial<Toast> & { text: string }): void {
    const full: Toast = { tone: 'info', ms: usualMs, ...toast, id: this.#nextId++, at: Date.now() }
    this.shown = [...this.shown, full]
    this.past = [full, ...this.past].slice(0, kept)
  }

  hide(id: number): void {
    this.shown = this.shown.filter((toast) => toast.id !== id)
  }
}
