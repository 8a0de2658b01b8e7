import type { appRequests } from '../../../preload/contract/app.ts'
import type { HandlersOf } from '../answer.ts'

export function appHandlers(parts: {
  /** Shows a web page in the person's browser. */
  openLink: (url: string) => void
  quit: (when: 'after-current' | 'now') => void
}): HandlersOf<typeof appRequests> {
  return {
    'app:openLink': ({ url }) => parts.openLink(url),
    'app:quit': ({ when }) => parts.quit(when),
  }
}
