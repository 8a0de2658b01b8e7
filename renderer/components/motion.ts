/** How long a picture takes to fade in; nothing where motion is not wanted, by the system or by a setting. */
export function fadeMs(): number {
  const root = document.documentElement
  const isReduced = matchMedia('(prefers-reduced-motion: reduce)').matches || root.dataset.motion === 'reduced'
  return isReduced ? 0 : 320
}
