import { VignetteError } from '../models/errors.ts'
import type { AppEvent, Bridge, Input, Output, RequestName } from '../preload/contract.ts'

declare global {
  interface Window {
    vignette: Bridge
  }
}

/** Asks main for something. A reply that is an error is thrown as one. */
export async function invoke<K extends RequestName>(name: K, input: Input<K>): Promise<Output<K>> {
  const reply = await window.vignette.invoke(name, input)
  if (reply.ok) return reply.value
  const { code, message, hint } = reply.error
  throw new VignetteError(code, message, { hint })
}

/** Where a file that was dropped or pasted lies on disk; empty when it lies nowhere. */
export function pathOf(file: File): string {
  return window.vignette.pathOf(file)
}

/** Hears everything main tells unasked; returns a function that ends it. */
export function onEvent(listener: (event: AppEvent) => void): () => void {
  return window.vignette.onEvent(listener)
}
