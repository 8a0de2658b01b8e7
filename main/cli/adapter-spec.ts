import type { CommandSpec, ParsedArguments } from './terminal.ts'

/** What `npm run adapter` takes; the commands share their options. */
export const adapterSpec = {
  command: 'npm run adapter --',
  positionals: 'inspect|convert|merge|split|extract|compare|suggest …',
  summary: 'Looks into adapters (LoRA and kin) and makes new ones of them. The files that are given stay as they are.',
  options: {
    model: { value: 'NAME', help: 'the model that the adapters are for: an installed one, its folder or a checkpoint' },
    out: { value: 'FILE', help: 'where the new adapter goes (split: a folder). An existing file is replaced' },
    to: { value: 'LAYOUT', help: 'convert: kohya, diffusers, or vignette, which is kohya with our notes' },
    rank: {
      value: 'N',
      help: 'convert, merge, extract: most ranks of a layer; smaller and less true. extract: 32 when left out',
    },
    'keep-inverse': { help: 'merge: keep in the file what is needed to take each adapter out again' },
    fp32: { help: 'store 32 bits a number instead of 16' },
    base: { value: 'MODEL', help: 'extract: the model that was trained on' },
    tuned: { value: 'MODEL', help: 'extract: what became of it' },
    sparse: { value: 'MASK', help: 'extract: a sparse adapter, by the mask wm, rand, struct or largest' },
    from: { value: 'PLACE', help: 'extract --sparse: the low-rank adapter; suggest: the folder with adapters' },
    seed: { value: 'N', help: 'extract --sparse rand: start of its choice, 1 when left out' },
    name: { value: 'NAME', help: 'title of the new adapter' },
  },
  example: 'npm run adapter -- merge ink.safetensors:0.8 fox.safetensors:0.6 --out inkfox.safetensors --keep-inverse',
  notes: [
    '  inspect FILE… [--model NAME]            what a file is, and whether it goes with the model',
    '  convert FILE --to LAYOUT [--rank N]     the same adapter for other programs, or a smaller one',
    '  merge FILE[:WEIGHT] … --out FILE        several adapters in one',
    '  split FILE --out FOLDER                 the adapters out of a file that merge --keep-inverse made',
    '  extract --base A --tuned B --out FILE   the difference of two models as an adapter',
    '  extract --sparse MASK --from FILE       a few weights of a low-rank adapter as a sparse one',
    '  compare FILE FILE                       how far two adapters change the same things',
    '  suggest "PROMPT" --from FOLDER          which adapters the prompt asks for',
  ].join('\n'),
} as const satisfies CommandSpec<string>

export type AdapterOption = keyof typeof adapterSpec.options
export type AdapterArguments = ParsedArguments<AdapterOption>
