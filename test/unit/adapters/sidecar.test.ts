import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readSidecars } from '../../../models/adapters/sidecar.ts'

let folder: string
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'vignette-sidecars-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let count = 0
function beside(files: Record<string, unknown>): Promise<Awaited<ReturnType<typeof readSidecars>>> {
  const stem = join(folder, `ink ${count++}.v1`)
  for (const [ending, content] of Object.entries(files))
    writeFileSync(`${stem}${ending}`, typeof content === 'string' ? content : JSON.stringify(content))
  return readSidecars(`${stem}.safetensors`)
}

describe('files beside an adapter', () => {
  it('of A1111', async () => {
    const said = { 'activation text': 'ink style, wash', 'preferred weight': 0.75, notes: 'Slow paper.' }
    expect(await beside({ '.json': said })).toEqual({
      ...{ triggers: ['ink style', 'wash'], preferredWeight: 0.75, description: 'Slow paper.' },
    })
    expect(await beside({ '.json': { 'preferred weight': 0, 'activation text': '' } })).toEqual({})
  })

  it('of Civitai, and of managers that wrap its answer', async () => {
    const version = {
      ...{
        trainedWords: ['ink style', 'wash'],
        description: '<p>Made with <b>care</b></p>',
        settings: { strength: 0.6 },
      },
      model: { name: 'Ink', tags: ['style'] },
    }
    const expected = { triggers: ['ink style', 'wash'], title: 'Ink', tags: ['style'], preferredWeight: 0.6 }
    expect(await beside({ '.civitai.info': version })).toMatchObject({ ...expected, description: 'Made with care' })
    const tips = JSON.stringify({ strength: 0.9, strength_range: '0.7-1.0' })
    const wrapped = { civitai: version, usage_tips: tips }
    expect(await beside({ '.metadata.json': wrapped })).toMatchObject({
      ...expected,
      ...{ preferredWeight: 0.9, weightRange: [0.7, 1] },
    })
  })

  it('of Stability Matrix', async () => {
    const said = { ModelName: 'Ink', TrainedWords: ['wash'], Tags: ['style'], VersionDescription: 'Second.' }
    expect(await beside({ '.cm-info.json': said })).toEqual({
      ...{ title: 'Ink', triggers: ['wash'], tags: ['style'], description: 'Second.' },
    })
  })

  it('the nearer to the person, the more it counts', async () => {
    const files = {
      '.json': { 'activation text': 'mine' },
      '.civitai.info': { trainedWords: ['theirs'], model: { name: 'Ink' } },
    }
    expect(await beside(files)).toMatchObject({ triggers: ['mine'], title: 'Ink' })
  })

  it('that are broken, huge or of other shapes say nothing', async () => {
    expect(await beside({})).toEqual({})
    expect(await beside({ '.json': '{"activation text": ' })).toEqual({})
    expect(await beside({ '.json': [1, 2], '.civitai.info': 'null', '.cm-info.json': '7' })).toEqual({})
    expect(await beside({ '.json': { 'activation text': { a: 1 }, 'preferred weight': 'lots', notes: 7 } })).toEqual({})
    const huge = JSON.stringify({ 'activation text': 'a', more: 'x'.repeat(2_100_000) })
    expect(await beside({ '.json': huge })).toEqual({})
    const long = await beside({
      '.json': { 'activation text': Array.from({ length: 300 }, (_, i) => `w${i}`).join(), notes: 'n'.repeat(9000) },
    })
    expect(long.triggers).toHaveLength(20)
    expect(long.description!.length).toBeLessThanOrEqual(2000)
  })
})
