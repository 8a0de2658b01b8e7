import type { AdapterRecord, AdapterRoleName } from '../../preload/contract/adapters.ts'
import { limits } from '../../preload/limits.ts'

// How strongly adapters act, as the slots show it.

/** What the slider covers; typed weights go further. */
export const sliderRange = { min: -2, max: 2, step: 0.05, fineStep: 0.01 }

const reservedRoles: readonly AdapterRoleName[] = ['speed', 'speed-slow', 'speed-fast', 'guidance', 'watermark']

export const roleLabels: Record<AdapterRoleName, string> = {
  style: 'Style',
  subject: 'Subject',
  detail: 'Detail',
  condition: 'Condition',
  speed: 'Speed',
  'speed-slow': 'Speed, slow phase',
  'speed-fast': 'Speed, fast phase',
  guidance: 'Guidance',
  watermark: 'Watermark',
}

/** These have slots of their own, which do not count among the person's. */
export function isReserved(role: AdapterRoleName): boolean {
  return reservedRoles.includes(role)
}

/** Where a slot begins and what a double click goes back to. */
export function preferredWeight({ preferredWeight, role }: Pick<AdapterRecord, 'preferredWeight' | 'role'>): number {
  return preferredWeight ?? (isReserved(role) ? 1 : 0.8)
}

/** Two digits, within what may be typed: floating point must not show. */
export function tidyWeight(weight: number): number {
  const bounded = Math.min(limits.maxAdapterWeight, Math.max(-limits.maxAdapterWeight, weight))
  return Math.round(bounded * 100) / 100 + 0 // no minus zero
}

/** "−0.80", with the true minus that is as wide as a digit. */
export function weightText(weight: number): string {
  return tidyWeight(weight).toFixed(2).replace('-', '−')
}

/** The steps that a slot acts in: "1–4 of 20". As main/pipeline/steps.ts rounds them. */
export function stepsText(start: number, end: number, steps: number): string {
  const first = Math.round(start * steps) + 1
  const last = Math.round(end * steps)
  if (last < first) return `no step of ${steps}`
  return first === last ? `step ${first} of ${steps}` : `steps ${first}–${last} of ${steps}`
}
