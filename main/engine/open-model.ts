import { join } from 'node:path'
import { reportError, VignetteError } from '../../models/errors.ts'
import { expectKnownFormat } from '../../models/quantize/file.ts'
import type { DeviceReport, FourBitReport } from '../../preload/contract/models.ts'
import type { ModeName } from '../../preload/limits.ts'
import { ensureFastForm, fastFormBytes } from './fast-form.ts'
import { defaultBudgetBytes, spareMemoryBytes } from './memory.ts'
import { chooseMode } from './mode.ts'
import { readManifest } from './model-folder.ts'
import { openNetworks, physicalCores, type NetworksOptions, type OpenNetworks } from './networks.ts'

export type ModelSettings = Pick<NetworksOptions, 'budgetBytes' | 'threads'> & {
  /** How a 4-bit model runs on the processor; chosen for this machine when left out. */
  mode?: ModeName
}

export type OpenModelOptions = {
  /** What the self-test says about this processor; asked for 4-bit models only. */
  fourBitOnCpu(): Promise<FourBitReport>
  /** Called before something that takes its time. */
  onWork?: () => void
  signal?: AbortSignal
}

/** A model on the device it runs best on, and what the person should know about that. */
export type OpenModel = { networks: OpenNetworks; notices: string[] }

/** Opens a model folder; for a 4-bit one that includes the choice of its mode and, once, the making of its fast form. */
export async function openModel(
  folder: string,
  device: DeviceReport,
  { mode: asked, budgetBytes = defaultBudgetBytes(), threads = physicalCores() }: ModelSettings,
  { fourBitOnCpu, onWork, signal }: OpenModelOptions,
): Promise<OpenModel> {
  const common = { budgetBytes, threads }
  const isFourBit = readManifest(folder).storage === 'int4'
  if (isFourBit) await expectKnownFormat(join(folder, 'unet.safetensors'))
  const isOnCard = device.provider !== 'cpu' && (!isFourBit || device.fourBit?.verdict === 'graphics')
  if (!isFourBit || isOnCard)
    return { networks: openNetworks(folder, { ...common, provider: device.provider }), notices: [] }

  const notices: string[] = []
  if (device.provider !== 'cpu') {
    notices.push(
      `${device.name} gets 4-bit models wrong (${device.fourBit?.reason ?? 'untested'}): the processor draws.`,
    )
  }
  const fourBit = await fourBitOnCpu()
  const facts = { fourBit, budgetBytes, spareBytes: spareMemoryBytes() }
  const choice = chooseMode({ asked, fastBytes: await fastFormBytes(folder), ...facts })
  if (choice.notice) notices.push(choice.notice)
  let { mode } = choice
  if (mode === 'fast') {
    try {
      await ensureFastForm(folder, { threads, onMaking: onWork, signal })
    } catch (error) {
      const isDisk = error instanceof VignetteError && diskErrors.has(error.code)
      if (!isDisk || !fourBit.usable.includes('low-memory')) throw error
      notices.push(`The fast mode cannot be prepared, so the low-memory mode draws. ${reportError(error).message}`)
      mode = 'low-memory'
    }
  }
  return { networks: openNetworks(folder, { ...common, mode }), notices }
}

const diskErrors: ReadonlySet<string> = new Set(['disk-full', 'folder-unwritable', 'file-unreadable'])
