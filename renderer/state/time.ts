/** A duration as people say it, coarse enough not to flicker: "5 s", "40 s", "3 min", "2 h". */
export function spokenTime(ms: number): string {
  const seconds = Math.max(1, Math.round(ms / 1000))
  if (seconds <= 10) return `${seconds} s`
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}

/** The time of day, as fields for it take it: "23:05". */
export function clockTime(ms: number): string {
  const at = new Date(ms)
  return `${String(at.getHours()).padStart(2, '0')}:${String(at.getMinutes()).padStart(2, '0')}`
}

/** When it will be "23:05" next: today, or tomorrow where that has passed. */
export function nextTime(text: string, now: number): number | undefined {
  const parts = /^(\d{1,2}):(\d{2})/.exec(text)
  if (!parts) return undefined
  const at = new Date(now)
  at.setHours(Number(parts[1]), Number(parts[2]), 0, 0)
  if (at.getTime() <= now) at.setDate(at.getDate() + 1)
  return at.getTime()
}
