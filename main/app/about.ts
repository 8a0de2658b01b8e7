import { cpus, release, totalmem, type } from 'node:os'
import notice from '../../NOTICE?raw'
import sources from '../../models/starter/SOURCES.md?raw'
import type { About } from '../../preload/contract/app.ts'
import { sleepAbility } from './sleep.ts'

/** What the application is, what it runs on, and whom it owes thanks. */
export function about(options: {
  version: string
  home: string
  runtime: About['runtime']
  battery: About['abilities']['battery']
}): About {
  const { version, home, runtime, battery } = options
  const processors = cpus()
  return {
    version,
    runtime: [...runtime, { name: 'Node', version: process.versions.node }, { name: systemName(), version: release() }],
    processor: processors[0]?.model.trim() || process.arch,
    cores: processors.length,
    memoryBytes: totalmem(),
    home,
    notice: notice.trim(),
    art: artOf(sources),
    abilities: { sleep: sleepAbility(), battery },
  }
}

function systemName(): string {
  const name = type()
  return name === 'Darwin' ? 'macOS (Darwin)' : name === 'Windows_NT' ? 'Windows' : name
}

/** Rows of the table in SOURCES.md: | set | author | licence | version | link | used in | */
export function artOf(markdown: string): About['art'] {
  return markdown
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) => line.split('|').slice(1, -1))
    .filter((cells) => cells.length === 6 && /<https:/.test(cells[4]))
    .map(([set, author, licence, , link]) => ({
      set: set.trim(),
      author: author.trim(),
      licence: licence.replace(/\s*\(<[^>]*>\)/, '').trim(),
      link: link.trim().replace(/^<|>$/g, ''),
    }))
}
