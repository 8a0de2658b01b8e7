import { VignetteError } from '../../models/errors.ts'
import type { GenerateRequest } from '../../preload/contract/generate.ts'
import type { PromptReading } from '../../preload/contract/prompt.ts'
import { limits } from '../../preload/limits.ts'
import { promptMarks } from '../../preload/prompt-marks.ts'
import type { PromptReader } from '../engine/client.ts'
import {
  chooseLongest,
  expandPrompt,
  placeInTemplate,
  seededChoice,
  textOf,
  type Choosing,
  type Expanded,
} from './prompt-choices.ts'
import type { PromptLists } from './prompt-lists.ts'

type Resolvable = Pick<GenerateRequest, 'prompt' | 'negativePrompt' | 'promptTemplate' | 'negativeTemplate'> & {
  seed: number
}

/** Prompts between what is typed and what is drawn. */
export class Prompts {
  readonly #lists: PromptLists
  readonly #reader: Pick<PromptReader, 'measure'>

  constructor(options: { lists: PromptLists; reader: Pick<PromptReader, 'measure'> }) {
    this.#lists = options.lists
    this.#reader = options.reader
  }

  async lists(): Promise<{ folder: string; names: string[] }> {
    return { folder: this.#lists.folder, names: await this.#lists.names() }
  }

  /** How much of each text the encoder reads. Of choices the longest counts. */
  async read(texts: readonly string[]): Promise<PromptReading[]> {
    const linesOf = await this.#linesFor(texts)
    const expanded = texts.map((text) => expandPrompt(text, { choose: chooseLongest, linesOf }))
    const measures = await this.#reader.measure(expanded.map(textOf))
    return expanded.map((one, i) => {
      const { unreadFrom, ...measure } = measures[i]
      return {
        ...measure,
        ...(unreadFrom === undefined ? {} : { unreadFrom: placeInTemplate(one, unreadFrom) }),
        isLongest: one.hasChoices,
        missingLists: one.missingLists,
        unknownHandles: one.unknownHandles,
      }
    })
  }

  /**
   * The words of one job, chosen by its seed. What was typed stays beside them when it says more than they do. `triggers`
   * are those of the adapters in use.
   */
  async resolve<R extends Resolvable>(
    request: R,
    triggers: readonly string[] = [],
  ): Promise<{ request: R; notices: string[] }> {
    // One that was resolved before, such as a job that is made again: its words stand.
    if (request.promptTemplate !== undefined || request.negativeTemplate !== undefined) return { request, notices: [] }
    const { prompt, negativePrompt, seed } = request
    const linesOf = await this.#linesFor([prompt, negativePrompt])
    const choosing = (stream: number): Choosing => ({ choose: seededChoice(seed, stream), linesOf, triggers })
    const expanded = [expandPrompt(prompt, choosing(0)), expandPrompt(negativePrompt, choosing(1))]
    const [words, negativeWords] = expanded.map(textOf)
    if (words.trim() === '') {
      throw new VignetteError('bad-request', 'Nothing of the prompt is left to draw.', {
        hint: 'Comments, lists that are not there and unknown @names are left out. Add a few words.',
      })
    }
    const notices = noticesOf(expanded)
    const fit = (text: string): string => {
      if (text.length <= limits.promptCharacters) return text
      notices.push(`The prompt grew beyond ${limits.promptCharacters} characters by its lists; the end was cut off.`)
      return text.slice(0, limits.promptCharacters)
    }
    return {
      request: {
        ...request,
        ...(words === prompt ? {} : { prompt: fit(words), promptTemplate: prompt }),
        ...(negativeWords === negativePrompt
          ? {}
          : { negativePrompt: fit(negativeWords), negativeTemplate: negativePrompt }),
      },
      notices,
    }
  }

  async #linesFor(texts: readonly string[]): Promise<Choosing['linesOf']> {
    const lists = await this.#lists.load(texts.flatMap(listNames), listNames)
    return (name) => lists.get(name)
  }
}

function listNames(text: string): string[] {
  if (!text.includes('__')) return []
  return promptMarks(text).flatMap((mark) => (mark.kind === 'list' ? [mark.name] : []))
}

function noticesOf(expanded: readonly Expanded[]): string[] {
  const missing = new Set(expanded.flatMap(({ missingLists }) => missingLists))
  const unknown = new Set(expanded.flatMap(({ unknownHandles }) => unknownHandles))
  return [
    ...Array.from(missing, (name) => `There is no list "${name}"; __${name}__ was left out.`),
    ...Array.from(unknown, (name) => `There is no character @${name}; it was left out.`),
  ]
}
