import { inspectAdapter } from '../../models/adapters/read.ts'
import { modelShape } from '../../models/adapters/shape.ts'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readManifest } from './model-folder.ts'

/** What the headers of adapter files tell about them and how they go with a model, by file. */
export async function adapterInfos(modelFolder: string, files: readonly string[]): Promise<Map<string, AdapterInfo>> {
  const unique = [...new Set(files)]
  if (unique.length === 0) return new Map()
  const shape = modelShape(readManifest(modelFolder).family, await readParts(modelFolder))
  return new Map(await Promise.all(unique.map(async (file) => [file, await inspectAdapter(file, shape)] as const)))
}
