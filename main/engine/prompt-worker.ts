import { parentPort } from 'node:worker_threads'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { measurePrompt } from '../pipeline/prompt.ts'
import { createTokenizer } from '../pipeline/tokenizer.ts'
import type { PromptAnswer, PromptQuestion } from './prompt-reader.ts'

// A thread of its own for counting prompts; see prompt-reader.ts.

const port = parentPort!
const tokenizer = readClipMerges().then(createTokenizer)

port.on('message', ({ id, texts }: PromptQuestion) => {
  void tokenizer.then((ready) => {
    const measures = texts.map((text) => measurePrompt(text, ready))
    port.postMessage({ id, measures } satisfies PromptAnswer)
  })
})
