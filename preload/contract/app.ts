import * as z from 'zod'

/** Something this computer may or may not be able to do, and why not. */
export const Ability = z.object({ isThere: z.boolean(), reason: z.string().optional() })
export type Ability = z.infer<typeof Ability>

/** What the About page shows, and other places that depend on the computer. */
export const About = z.object({
  version: z.string(),
  /** Name and version of what it runs on: Electron, Chromium, Node, the system. */
  runtime: z.array(z.object({ name: z.string(), version: z.string() })),
  processor: z.string(),
  cores: z.int(),
  memoryBytes: z.number(),
  /** Where everything of the person's lies. */
  home: z.string(),
  notice: z.string(),
  /** Author and licence of each set of art the starter model was trained on. */
  art: z.array(z.object({ set: z.string(), author: z.string(), licence: z.string(), link: z.string() })),
  abilities: z.object({
    /** Putting the computer to sleep when the queue is done. */
    sleep: Ability,
    /** Knowing how full the battery is. */
    battery: Ability,
  }),
})
export type About = z.infer<typeof About>

/** What takes up space: a folder or a group of files of Vignette's. */
export const StoragePart = z.object({
  id: z.enum(['pictures', 'adapters', 'models', 'bin', 'stories', 'queue', 'index', 'logs', 'window', 'other']),
  path: z.string(),
  bytes: z.number(),
  files: z.int(),
  isMeasured: z.boolean(),
})
export type StoragePart = z.infer<typeof StoragePart>

/** A command of the window as the native menu shows it. */
export const MenuCommand = z.object({
  id: z.string().max(200),
  title: z.string().max(200),
  group: z.string().max(100),
  keys: z.string().max(50).optional(),
  isEnabled: z.boolean(),
})
export type MenuCommand = z.infer<typeof MenuCommand>

export const appRequests = {
  /** Shows a web page in the person's browser; only after they have seen its address. */
  'app:openLink': { input: z.object({ url: z.url({ protocol: /^https$/ }) }), output: z.void() },
  /** What the person said when the window asked whether to leave with work in the queue; `stay` takes either back. */
  'app:quit': { input: z.object({ when: z.enum(['after-current', 'now', 'stay']) }), output: z.void() },
  /** The commands of the window, for the native menu: sent when they change. */
  'app:menu': { input: z.object({ commands: z.array(MenuCommand).max(500) }), output: z.void() },
  'app:about': { input: z.void(), output: About },
  /** Shows the log in the system's file manager. */
  'app:showLog': { input: z.void(), output: z.void() },
  /** The text of a diagnostics file, to be read before it is saved. No prompts; paths only when asked for. */
  'app:diagnostics': { input: z.object({ hasPaths: z.boolean() }), output: z.object({ text: z.string() }) },
  'app:saveDiagnostics': {
    input: z.object({ hasPaths: z.boolean() }),
    output: z.object({ file: z.string().optional() }),
  },
  /** Begins to measure; what is found comes as `storage:changed`. */
  'storage:measure': { input: z.void(), output: z.void() },
  'storage:cancel': { input: z.void(), output: z.void() },
  /** Shows a part in the system's file manager. */
  'storage:show': { input: z.object({ id: StoragePart.shape.id }), output: z.void() },
  /** Deletes what lies in the bin: the one deletion that cannot be taken back. */
  'storage:emptyBin': { input: z.void(), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const appEvents = [
  /** From the native menu: a command of the window by its id. */
  z.object({ type: z.literal('app:command'), id: z.string() }),
  /** Files that a second start, the system or the dock handed over. */
  z.object({ type: z.literal('app:files'), files: z.array(z.string()) }),
  /** The person wants to leave, and there is work in the queue: the window asks how. `at`: what happens by itself then. */
  z.object({ type: z.literal('app:quitting'), at: z.number().optional() }),
  /** The queue is done and the computer is about to sleep, unless somebody says `app:quit { when: 'stay' }`. */
  z.object({ type: z.literal('app:sleeping'), at: z.number() }),
  z.object({
    type: z.literal('storage:changed'),
    parts: z.array(StoragePart),
    isMeasuring: z.boolean(),
    freeBytes: z.number().optional(),
  }),
] as const
