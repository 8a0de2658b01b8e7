import type { AppModel } from '../../state/app.svelte.ts'
import { t } from '../../strings.ts'

/** A line of the palette: a command, or something to go to. */
export type PaletteEntry = { id: string; title: string; group: string; words: string; keys?: string; run?: () => void }

/** All that can be chosen by name now. */
export function paletteEntries({ commands, shell, adapters, models }: AppModel): PaletteEntry[] {
  const ids = new Set<string>()
  const own = commands.all.flatMap(({ id }): PaletteEntry[] => {
    const command = commands.find(id)!
    if (ids.has(id) || command.isHidden || command.when?.() === false) return []
    ids.add(id)
    const { title, group, words = '' } = command
    return [{ id, title, group, words, keys: commands.label(id) }]
  })
  const order = [t('Screens')]
  const sorted = own.sort((a, b) => order.indexOf(b.group) - order.indexOf(a.group) || a.group.localeCompare(b.group))
  return [
    ...sorted,
    ...models.all.map(({ id, name }) => ({
      id: `model:${id}`,
      title: name,
      group: t('Models'),
      words: '',
      run: () => shell.go('models', { model: id }),
    })),
    ...adapters.all.map(({ id, name, triggers }) => ({
      id: `adapter:${id}`,
      title: name,
      group: t('Adapters'),
      words: triggers.join(' '),
      run: () => shell.go('adapters', { adapter: id }),
    })),
  ]
}
