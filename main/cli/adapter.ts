import { VignetteError } from '../../models/errors.ts'
import { compare, suggest } from './adapter-choose.ts'
import { inspect } from './adapter-inspect.ts'
import { convert, extract, merge, split } from './adapter-make.ts'
import { adapterSpec as spec, type AdapterArguments, type AdapterOption } from './adapter-spec.ts'
import { runCli, type Terminal } from './terminal.ts'

const commands: Record<string, (args: AdapterArguments, terminal: Terminal) => Promise<void>> = {
  inspect,
  convert,
  merge,
  split,
  extract,
  compare,
  suggest,
}

await runCli<AdapterOption>(spec, async (args, terminal) => {
  const [name, ...positionals] = args.positionals
  const command = name === undefined ? undefined : commands[name]
  if (!command)
    throw new VignetteError(
      'bad-request',
      name === undefined ? 'What should be done with the adapters?' : `There is no command "${name}".`,
      { hint: `Choose ${Object.keys(commands).slice(0, -1).join(', ')} or suggest. ${spec.example}` },
    )
  await command({ ...args, positionals }, terminal)
})
