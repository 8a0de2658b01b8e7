import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { t } from '../strings.ts'
import { samplerLabels, scheduleLabels } from './labels.ts'
import { weightText } from './weights.ts'

export type RecipeRow = { label: string; value: string }

/** The settings of a recipe, in words, without its prompts and adapters. What it does not say is left out. */
export function settingRows({ request = {} }: RecalledRecipe): RecipeRow[] {
  const { seed, width, height, steps, guidanceScale, sampler, schedule, strength, speed, clipSkip } = request
  const rows: [string, string | number | undefined][] = [
    [t('Seed'), seed],
    [t('Size'), width && height ? `${width} × ${height}` : undefined],
    [t('Steps'), request.timesteps?.length ?? steps],
    [t('Guidance scale'), guidanceScale],
    [t('Sampler'), sampler && samplerLabels[sampler]],
    [t('Noise schedule'), request.timesteps ? t('of its adapter') : schedule && scheduleLabels[schedule]],
    [t('Guidance rescale'), request.guidanceRescale || undefined],
    [t('Clip skip'), clipSkip !== undefined && clipSkip > 1 ? clipSkip : undefined],
    [t('Computed'), speed === 'faster' ? t('nearly exact') : speed === 'fastest' ? t('roughly') : undefined],
  ]
  return [...rows, ...strengthRow(request, strength)].flatMap(([label, value]) =>
    value === undefined ? [] : [{ label, value: String(value) }],
  )
}

/** Only where there was something to start from: every request carries a strength. */
function strengthRow(request: object, strength: number | undefined): [string, string | number | undefined][] {
  const isForeign = !('speed' in request)
  return isForeign && strength !== undefined ? [[t('Strength'), strength]] : []
}

/** Without what only tells the kind of file. */
export function adapterName({ name }: Pick<RecalledAdapter, 'name'>): string {
  return name.replace(/\.(safetensors|pt|bin|ckpt)$/i, '')
}

/** "0.8", "0.8 · text 0.5 · steps 20–80 %". */
export function adapterText({ weight = 1, textWeight, start, end }: RecalledAdapter): string {
  const parts = [weightText(weight)]
  if (textWeight !== undefined && textWeight !== weight)
    parts.push(t('text {weight}', { weight: weightText(textWeight) }))
  if (start > 0 || end < 1)
    parts.push(t('steps {start}–{end} %', { start: Math.round(100 * start), end: Math.round(100 * end) }))
  return parts.join(' · ')
}

export function rowsText(rows: readonly RecipeRow[]): string {
  return rows.map(({ label, value }) => `${label}: ${value}`).join('\n')
}
