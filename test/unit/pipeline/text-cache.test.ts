import { expect, test } from 'vitest'
import { tensor } from '../../../main/pipeline/tensor.ts'
import { createTextCache } from '../../../main/pipeline/text-cache.ts'

const chunk = (value: number, floats = 25) => ({
  states: tensor(new Float32Array(floats - 1).fill(value), [floats - 1, 1]),
  pooled: tensor(Float32Array.of(value), [1]),
})

test('gives back what was put in, the last under a key', () => {
  const cache = createTextCache()
  expect(cache.get('a')).toBeUndefined()
  cache.put('a', chunk(1))
  cache.put('a', chunk(2))
  expect(cache.get('a')?.pooled.data[0]).toBe(2)
})

test('forgets what was unused longest when it is full, and counts in bytes', () => {
  const cache = createTextCache(300) // three of 100 bytes
  for (const key of ['a', 'b', 'c']) cache.put(key, chunk(1))
  cache.get('a')
  cache.put('d', chunk(1))
  expect(['a', 'b', 'c', 'd'].map((key) => cache.get(key) !== undefined)).toEqual([true, false, true, true])
  // The same key again takes no more room.
  cache.put('d', chunk(2))
  expect(['a', 'c', 'd'].every((key) => cache.get(key) !== undefined)).toBe(true)
  cache.put('e', chunk(1, 50))
  expect(['a', 'c', 'd', 'e'].map((key) => cache.get(key) !== undefined)).toEqual([false, false, true, true])
})

test('keeps nothing that is larger than all its room', () => {
  const cache = createTextCache(300)
  cache.put('a', chunk(1))
  cache.put('b', chunk(1, 100))
  expect([cache.get('a'), cache.get('b')]).toEqual([undefined, undefined])
})
