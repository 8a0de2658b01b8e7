import type { About } from '../../../preload/contract/app.ts'
import type { Settings } from '../../../preload/contract/settings.ts'
import type { settingDefaults } from '../../../preload/defaults.ts'
import { t } from '../../strings.ts'

export type SettingKey = keyof typeof settingDefaults
export const pageIds = [
  ...(['general', 'library', 'performance', 'queue', 'export', 'privacy'] as const),
  ...(['shortcuts', 'accessibility', 'safety', 'advanced', 'about'] as const),
] as const
export type PageId = (typeof pageIds)[number]

type Value = NonNullable<Settings[SettingKey]>
type Choice = { value: Value; label: string; offReason?: string }
type Common = { label: string; hint?: string; /** Words that find it as well. */ words?: string; offReason?: string }

/** One line of a page. */
export type Item =
  | (Common & { kind: 'choice'; key: SettingKey; choices: readonly Choice[]; isList?: boolean })
  | (Common & { kind: 'switch'; key: SettingKey })
  | (Common & { kind: 'number'; key: SettingKey; min: number; max: number; step: number; unit: string })
  /** What comes in a later version: in its place, off, with the reason. */
  | (Common & { kind: 'later'; id: string; offReason: string })
  /** A part of the page with a component of its own. */
  | (Common & { kind: 'part'; id: PartId })

export type PartId =
  'links' | 'storage' | 'device' | 'network' | 'shortcuts' | 'logs' | 'diagnostics' | 'transfer' | 'updates' | 'about'

export type Page = { id: PageId; title: string; items: readonly Item[] }

/** What the pages need to know of the computer; undefined until it is known. */
export type PageFacts = { about: About | undefined; languages: readonly { id: string; name: string }[] }

/** Every setting there is, in the order of the pages. Made anew when the language changes. */
export function settingPages({ about, languages }: PageFacts): Page[] {
  const later = t('This comes with a later version of Vignette.')
  const cores = about?.cores ?? 1
  const sleep = about?.abilities.sleep
  const battery = about?.abilities.battery
  return [
    {
      id: 'general',
      title: t('General'),
      items: [
        {
          ...{ kind: 'choice', key: 'language', isList: true, label: t('Language') },
          choices: [
            { value: 'system', label: t('As the system') },
            ...languages.map(({ id, name }) => ({ value: id, label: name })),
          ],
        },
        {
          ...{ kind: 'choice', key: 'theme', label: t('Theme'), words: t('dark light colours night contrast') },
          choices: [
            { value: 'system', label: t('System') },
            { value: 'light', label: t('Light') },
            { value: 'dark', label: t('Dark') },
            { value: 'contrast', label: t('High contrast') },
          ],
        },
        {
          ...{ kind: 'number', key: 'textScale', min: 80, max: 200, step: 10, unit: '%' },
          ...{ label: t('Text size'), words: t('zoom font larger smaller scale') },
        },
        {
          ...{ kind: 'choice', key: 'density', label: t('Spacing'), words: t('density compact') },
          choices: [
            { value: 'comfortable', label: t('Comfortable') },
            { value: 'compact', label: t('Compact') },
          ],
        },
        {
          ...{ kind: 'choice', key: 'startScreen', label: t('Open with') },
          choices: [
            { value: 'last', label: t('The last screen') },
            { value: 'studio', label: t('Studio') },
            { value: 'gallery', label: t('Gallery') },
          ],
        },
        {
          ...{ kind: 'switch', key: 'addsTriggers', label: t('Add triggers when adding an adapter') },
          hint: t('Puts the words an adapter listens to into the prompt.'),
        },
      ],
    },
    {
      id: 'library',
      title: t('Library'),
      items: [
        { kind: 'part', id: 'links', label: t('Linked folders'), words: t('ComfyUI A1111 model folders') },
        { kind: 'part', id: 'storage', label: t('Location and size'), words: t('disk space bin empty folder') },
        {
          ...{ kind: 'choice', key: 'binDays', label: t('Keep things in the bin') },
          hint: t('What has lain there for longer is deleted when Vignette starts.'),
          choices: [
            { value: 7, label: t('7 days') },
            { value: 30, label: t('30 days') },
            { value: 90, label: t('90 days') },
            { value: 'never', label: t('Always') },
          ],
        },
        {
          ...{ kind: 'later', id: 'move-library', label: t('Move the library') },
          hint: t('To another disk, with every file compared before the old one goes.'),
          offReason: t(
            'Moving from inside the window comes with a later version. Until then: quit, move the folder, and start with VIGNETTE_HOME set to its new place.',
          ),
        },
      ],
    },
    {
      id: 'performance',
      title: t('Performance'),
      items: [
        { kind: 'part', id: 'device', label: t('What pictures are made on'), words: t('engine GPU CPU graphics card') },
        {
          ...{ kind: 'choice', key: 'device', label: t('Device'), words: t('GPU CPU graphics card processor') },
          hint: t('Applies from the next picture on. Automatic takes the graphics card when it proves itself.'),
          choices: [
            { value: 'auto', label: t('Automatic') },
            { value: 'cpu', label: t('Processor') },
            { value: 'gpu', label: t('Graphics card') },
          ],
        },
        {
          ...{ kind: 'number', key: 'memoryPercent', min: 25, max: 90, step: 5, unit: '%' },
          ...{ label: t('Memory limit'), words: t('RAM') },
          hint: t('Share of this computer’s memory that making pictures may use. Applies from the next picture on.'),
        },
        {
          ...{ kind: 'choice', key: 'threads', isList: true, label: t('Processor cores') },
          hint: t('Fewer leave more for other programs. Applies from the next picture on.'),
          choices: [
            { value: 'auto', label: t('Automatic') },
            ...Array.from({ length: cores }, (_, i) => ({ value: i + 1, label: String(i + 1) })),
          ],
        },
        {
          ...{ kind: 'choice', key: 'fourBitMode', label: t('4-bit models on the processor') },
          hint: t('Fast unpacks them once and needs more memory. Applies from the next picture on.'),
          choices: [
            { value: 'auto', label: t('Automatic') },
            { value: 'fast', label: t('Fast') },
            { value: 'low-memory', label: t('Little memory') },
          ],
        },
        {
          ...{ kind: 'number', key: 'keepModelMinutes', min: 0, max: 60, step: 5, unit: t('min') },
          label: t('Keep the model loaded for'),
          hint: t('After that its memory is given back; the next picture loads it again.'),
        },
        {
          ...{
            kind: 'choice',
            key: 'speed',
            label: t('Work skipped between steps'),
            words: t('reuse deep features exact'),
          },
          hint: t(
            'Exact computes every step whole. The others let what hardly changes stand: the same picture, nearly.',
          ),
          choices: [
            { value: 'exact', label: t('None (exact)') },
            { value: 'faster', label: t('Some') },
            { value: 'fastest', label: t('Much') },
          ],
        },
        {
          ...{ kind: 'switch', key: 'pauseOnBattery', label: t('Pause below 20 % of battery') },
          hint: t('The queue goes on by itself at the mains.'),
          ...(battery && !battery.isThere ? { offReason: battery.reason ?? later } : {}),
        },
        {
          ...{ kind: 'later', id: 'full-screen', label: t('When another program fills the screen') },
          hint: t('Continue, slow down or pause.'),
          offReason: t(
            'The system does not tell Vignette about other programs. Pictures are made at low priority instead.',
          ),
        },
      ],
    },
    {
      id: 'queue',
      title: t('Queue'),
      items: [
        {
          ...{ kind: 'switch', key: 'isStudioFirst', label: t('Studio first') },
          hint: t('Pictures asked for in the Studio go before those of stories.'),
        },
        {
          ...{ kind: 'choice', key: 'afterCrash', label: t('After a crash or power cut') },
          hint: t('After an ordinary quit the queue is as you left it.'),
          choices: [
            { value: 'pause', label: t('Pause and ask') },
            { value: 'resume', label: t('Go on') },
          ],
        },
        {
          ...{ kind: 'switch', key: 'keepsCheckpoints', label: t('Keep checkpoints') },
          hint: t('A picture that is interrupted goes on where it was, instead of from the start.'),
        },
        {
          ...{ kind: 'choice', key: 'whenDone', label: t('When the queue is done'), words: t('sleep notify') },
          choices: [
            { value: 'nothing', label: t('Nothing') },
            { value: 'notify', label: t('Notify') },
            {
              ...{ value: 'sleep', label: t('Sleep') },
              ...(sleep && !sleep.isThere ? { offReason: sleep.reason ?? later } : {}),
            },
          ],
        },
      ],
    },
    {
      id: 'export',
      title: t('Export defaults'),
      items: [
        {
          ...{ kind: 'later', id: 'export-defaults', label: t('Format, size, names and marks of exported files') },
          hint: t('Pictures in the library are PNG files that carry their recipe; they can be dragged out or copied.'),
          offReason: t('Export with its own choices comes with a later version of Vignette.'),
        },
      ],
    },
    {
      id: 'privacy',
      title: t('Privacy & network'),
      items: [
        {
          kind: 'part',
          id: 'network',
          label: t('Network'),
          words: t('offline online update download telemetry ledger'),
        },
      ],
    },
    {
      id: 'shortcuts',
      title: t('Shortcuts'),
      items: [
        {
          ...{ kind: 'switch', key: 'escCancels', label: t('Esc cancels the running job') },
          hint: t('When nothing else is open that Esc would close.'),
        },
        { kind: 'part', id: 'shortcuts', label: t('Keys'), words: t('keyboard rebind') },
      ],
    },
    {
      id: 'accessibility',
      title: t('Accessibility'),
      items: [
        {
          ...{ kind: 'choice', key: 'reducedMotion', label: t('Motion') },
          choices: [
            { value: 'system', label: t('As the system') },
            { value: 'on', label: t('Reduced') },
          ],
        },
        {
          ...{ kind: 'choice', key: 'announceEvery', label: t('Announce progress every') },
          hint: t('To screen readers.'),
          choices: [
            { value: 10, label: '10 %' },
            { value: 25, label: '25 %' },
            { value: 50, label: '50 %' },
          ],
        },
        {
          ...{ kind: 'switch', key: 'hasSingleKeys', label: t('Single-key shortcuts') },
          hint: t('Letters act in grids and viewers, never while you write.'),
        },
        {
          ...{ kind: 'switch', key: 'hasLargerTargets', label: t('Larger targets') },
          hint: t('Buttons are at least 44 points high.'),
        },
        {
          ...{ kind: 'later', id: 'sounds', label: t('Sounds') },
          offReason: t('Vignette makes no sounds.'),
        },
      ],
    },
    {
      id: 'safety',
      title: t('Safety'),
      items: [
        {
          ...{ kind: 'switch', key: 'blursMature', label: t('Blur mature previews') },
          hint: t('Of adapters that you have tagged as mature. Nothing is judged by itself.'),
        },
        { kind: 'later', id: 'age-gate', label: t('Age gate'), offReason: later },
        {
          ...{ kind: 'later', id: 'content-filter', label: t('Content filter') },
          hint: t('On this computer, with a reason for each decision.'),
          offReason: later,
        },
      ],
    },
    {
      id: 'advanced',
      title: t('Advanced'),
      items: [
        { kind: 'part', id: 'logs', label: t('Log'), words: t('errors') },
        { kind: 'part', id: 'diagnostics', label: t('Diagnostics file'), words: t('report bug support') },
        { kind: 'part', id: 'transfer', label: t('Settings file'), words: t('export import reset all') },
        {
          ...{ kind: 'later', id: 'local-api', label: t('Local API') },
          hint: t('Other programs on this computer ask for pictures.'),
          offReason: t('Off. It comes with a later version of Vignette, for this computer only and with a token.'),
        },
      ],
    },
    {
      id: 'about',
      title: t('About & updates'),
      items: [
        { kind: 'part', id: 'updates', label: t('Updates'), words: t('version new release') },
        {
          kind: 'part',
          id: 'about',
          label: t('About Vignette'),
          words: t('version licence notice credits engine device'),
        },
      ],
    },
  ]
}

/** The lines that hold every word looked for, by page; pages without any are left out. */
export function searchPages(pages: readonly Page[], query: string): Page[] {
  const words = fold(query).split(/\s+/).filter(Boolean)
  if (words.length === 0) return [...pages]
  return pages
    .map((page) => ({
      ...page,
      items: page.items.filter((item) => {
        const choices = item.kind === 'choice' && !item.isList ? item.choices.map(({ label }) => label) : []
        const text = fold([page.title, item.label, item.hint, item.words, ...choices].join(' '))
        return words.every((word) => text.includes(word))
      }),
    }))
    .filter(({ items }) => items.length > 0)
}

/** Case and accents do not matter when something is looked for. */
function fold(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
}
