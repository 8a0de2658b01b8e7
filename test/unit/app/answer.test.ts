import { describe, expect, it } from 'vitest'
import { answer, type Handlers } from '../../../main/app/answer.ts'
import { VignetteError } from '../../../models/errors.ts'
import { requests } from '../../../preload/contract.ts'
import { type GenerateRequest } from '../../../preload/contract/generate.ts'

const handlers = (part: Partial<Handlers>) => part as Handlers

describe('answer', () => {
  it('gives the handler a validated request with its defaults, and packs what it returns', async () => {
    let seen: GenerateRequest | undefined
    const value = { batchId: 'b', jobIds: ['a'] }
    const reply = await answer(handlers({ 'jobs:add': ({ requests }) => ((seen = requests[0]), value) }), 'jobs:add', {
      requests: [{ prompt: 'a barn' }],
    })
    expect(reply).toEqual({ ok: true, value })
    expect(seen).toMatchObject({ prompt: 'a barn', negativePrompt: '', count: 1, model: 'starter' })
  })

  it('refuses what the contract does not allow, and says which field', async () => {
    const add = handlers({ 'jobs:add': () => expect.unreachable() })
    for (const raw of [{ prompt: 1 }, undefined, { prompt: 'a', steps: 0 }, { prompt: 'a', sampler: 'none' }]) {
      expect(await answer(add, 'jobs:add', { requests: [raw] })).toMatchObject({
        ok: false,
        error: { code: 'bad-request' },
      })
    }
    const reply = await answer(add, 'jobs:add', { requests: [{ prompt: 'a', width: 500 }] })
    expect(reply).toMatchObject({
      ok: false,
      error: { code: 'bad-request', message: expect.stringMatching(/multiple of 8.*width/s) },
    })
  })

  it('passes on an expected failure as it is', async () => {
    const fail = () => Promise.reject(new VignetteError('disk-full', 'The disk is full.', { hint: 'Free some space.' }))
    const faults: unknown[] = []
    const reply = await answer(handlers({ 'images:reveal': fail }), 'images:reveal', { id: 'x' }, (_, error) =>
      faults.push(error),
    )
    expect(reply).toEqual({
      ok: false,
      error: { code: 'disk-full', message: 'The disk is full.', hint: 'Free some space.' },
    })
    expect(faults).toEqual([])
  })

  it('reports a bug as internal and hands it to the log', async () => {
    const bug = new TypeError('x is not a function')
    const faults: unknown[] = []
    const throwing = handlers({
      'jobs:cancel': () => {
        throw bug
      },
    })
    const reply = await answer(throwing, 'jobs:cancel', { ids: ['x'] }, (_, error) => faults.push(error))
    expect(reply).toMatchObject({ ok: false, error: { code: 'internal' } })
    expect(faults).toEqual([bug])
  })

  it('does not take the name of anything else for a request', async () => {
    for (const name of ['constructor', 'toString', '__proto__', 'jobs:none']) {
      expect(await answer(handlers({}), name as keyof typeof requests, {})).toMatchObject({
        ok: false,
        error: { code: 'bad-request' },
      })
    }
  })
})
