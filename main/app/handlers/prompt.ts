import type { promptRequests } from '../../../preload/contract/prompt.ts'
import type { HandlersOf } from '../answer.ts'
import type { Prompts } from '../prompts.ts'

export function promptHandlers(parts: { prompts: Pick<Prompts, 'read' | 'lists'> }): HandlersOf<typeof promptRequests> {
  const { prompts } = parts
  return {
    'prompt:read': async ({ prompt, negativePrompt }) => {
      const [first, second] = await prompts.read([prompt, negativePrompt])
      return { prompt: first, negativePrompt: second }
    },
    'prompt:lists': () => prompts.lists(),
  }
}
