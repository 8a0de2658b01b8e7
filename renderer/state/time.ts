/** A duration as people say it, coarse enough not to flicker: "5 s", "40 s", "3 min", "2 h". */
export function spokenTime(ms: number): string {
  const seconds = Math.max(1, Math.round(ms / 1000))
  if (seconds <= 10) return `${seconds} s`
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 90 ? `${minutes} min` : `${Math.round(minutes / 60)} h`
}
