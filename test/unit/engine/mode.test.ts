import { describe, expect, test } from 'vitest'
import { chooseMode, type ModeFacts } from '../../../main/engine/mode.ts'

const good = { verdict: 'fast', usable: ['fast', 'low-memory'], reason: 'byte arithmetic is exact' } as const
const facts = (changes: Partial<ModeFacts>): ModeFacts => ({
  fourBit: { ...good, usable: [...good.usable] },
  fastBytes: 1e9,
  budgetBytes: 6e9,
  ...changes,
})

describe('by itself', () => {
  test('takes the fast mode where it is right, fast and fits', () => {
    expect(chooseMode(facts({}))).toEqual({ mode: 'fast' })
    expect(chooseMode(facts({ spareBytes: 2e9 }))).toEqual({ mode: 'fast' })
  })

  test('takes the low-memory mode where bytes are slow or wrong, without a word: that is how the machine is', () => {
    for (const usable of [['fast', 'low-memory'], ['low-memory']] as ModeFacts['fourBit']['usable'][]) {
      const fourBit = { verdict: 'low-memory' as const, usable, reason: 'overflow' }
      expect(chooseMode(facts({ fourBit }))).toEqual({ mode: 'low-memory' })
    }
  })

  test('says so when only the memory stands in the way', () => {
    expect(chooseMode(facts({ budgetBytes: 1.9e9 }))).toEqual({
      mode: 'low-memory',
      notice: 'The fast mode needs 1.0 GB, and of 1.9 GB for models half may be used: the low-memory mode is slower.',
    })
    expect(chooseMode(facts({ spareBytes: 0.9e9 }))).toEqual({
      mode: 'low-memory',
      notice: 'The fast mode needs 1.0 GB, and 900 MB are free: the low-memory mode is slower.',
    })
  })

  test('stays with the fast mode where the other one is wrong', () => {
    const fourBit = { verdict: 'fast' as const, usable: ['fast' as const], reason: 'packed weights come out wrong' }
    expect(chooseMode(facts({ fourBit, spareBytes: 1 }))).toEqual({ mode: 'fast' })
  })
})

describe('when asked', () => {
  test('does as it is told, whatever the memory', () => {
    expect(chooseMode(facts({ asked: 'fast', spareBytes: 1 }))).toEqual({ mode: 'fast' })
    expect(chooseMode(facts({ asked: 'low-memory' }))).toEqual({ mode: 'low-memory' })
  })

  test('refuses a mode that draws wrong pictures here, with the reason', () => {
    const reason = 'large products of bytes overflow on this processor'
    const fourBit = { verdict: 'low-memory' as const, usable: ['low-memory' as const], reason }
    expect(() => chooseMode(facts({ asked: 'fast', fourBit }))).toThrow(
      expect.objectContaining({ code: 'bad-request', message: expect.stringContaining(reason) }),
    )
    const none = { verdict: 'plain' as const, usable: [], reason }
    for (const asked of ['fast', 'low-memory', undefined] as const) {
      expect(() => chooseMode(facts({ asked, fourBit: none }))).toThrow(
        expect.objectContaining({ code: 'checkpoint-unsupported', hint: expect.any(String) }),
      )
    }
  })
})
