import { homedir, hostname, userInfo } from 'node:os'
import type { About } from '../../preload/contract/app.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'

export type DiagnosticsParts = {
  about: About
  device: DeviceReport | undefined
  settings: Settings
  /** How many of each there are. */
  counts: Record<string, number>
  /** The end of the log. */
  log: string
  /** Words that must not be in it: prompts, names the person gave. */
  secrets: readonly string[]
  hasPaths: boolean
  now?: Date
}

/** What helps to find a fault, and nothing that tells what the person makes. They read it before it is saved. */
export function diagnosticsText(parts: DiagnosticsParts): string {
  const { about, device, settings, counts, log, secrets, hasPaths, now = new Date() } = parts
  const chosen = (Object.keys(settingDefaults) as (keyof typeof settingDefaults)[])
    .filter((key) => settings[key] !== undefined && key !== 'updateAddress')
    .map((key) => `${key}: ${JSON.stringify(settings[key])}`)
  const fourBit = device?.fourBit
  const sections: [string, string[]][] = [
    [
      'Vignette',
      [
        `version: ${about.version}`,
        ...about.runtime.map(({ name, version }) => `${name}: ${version}`),
        `processor: ${about.processor}, ${about.cores} cores`,
        `memory: ${(about.memoryBytes / 2 ** 30).toFixed(1)} GB`,
        `home: ${about.home}`,
      ],
    ],
    [
      'Engine',
      device
        ? [
            `device: ${device.provider}, ${device.name}`,
            `reason: ${device.reason}`,
            ...(fourBit ? [`4-bit: ${fourBit.verdict}; usable: ${fourBit.usable.join(', ')}; ${fourBit.reason}`] : []),
          ]
        : ['not started yet'],
    ],
    ['Settings that differ from their defaults', chosen.length > 0 ? chosen : ['none']],
    ['Counts', Object.entries(counts).map(([name, count]) => `${name}: ${count}`)],
    ['Log', [log.trimEnd()]],
  ]
  const text = sections.map(([title, lines]) => `## ${title}\n${lines.join('\n')}`).join('\n\n')
  const clean = withoutWords(text, secrets)
  return `Vignette diagnostics, ${now.toISOString()}\n\n${hasPaths ? clean : withoutPaths(clean, about.home)}\n`
}

/** Longest first, so that a prompt which holds another leaves nothing behind. */
function withoutWords(text: string, secrets: readonly string[]): string {
  const words = secrets.map((word) => word.trim()).filter((word) => word.length > 3)
  return [...new Set(words)]
    .sort((a, b) => b.length - a.length)
    .reduce((rest, word) => rest.replaceAll(word, '…'), text)
}

/** Takes out places on the disk, and the names of the person and the computer. */
export function withoutPaths(text: string, home: string, own = ownNames()): string {
  const known = [home, ...own.folders].filter((folder) => folder.length > 1).sort((a, b) => b.length - a.length)
  const named = known.reduce((rest, folder) => rest.replaceAll(folder, '<folder>'), text)
  const short = named
    // file:///…, C:\…, \\server\…, /home/… and what follows a known folder, up to a space, quote or bracket
    .replace(/file:\/\/[^\s'"()]+/g, '<path>')
    .replace(/<folder>[^\s'"(),;:]*/g, '<path>')
    .replace(/\b[A-Za-z]:\\[^\s'"()<>|,;]+/g, '<path>')
    .replace(/\\\\[^\s'"()<>|,;]+/g, '<path>')
    .replace(/(^|[\s'"(=:])\/(?!\/)[^\s'"()<>,;:/]+\/[^\s'"()<>,;:]*/gm, '$1<path>')
  return own.names
    .filter((name) => name.length > 2)
    .reduce((rest, name) => rest.replace(new RegExp(`\\b${escapeRegExp(name)}\\b`, 'g'), '<name>'), short)
}

function ownNames(): { folders: string[]; names: string[] } {
  let name = ''
  try {
    name = userInfo().username
  } catch {
    // Some systems have no name for the one who runs this.
  }
  return { folders: [homedir()], names: [name, hostname()] }
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
