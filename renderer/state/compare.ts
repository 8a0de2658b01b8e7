import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { t } from '../strings.ts'
import { samplerLabels, scheduleLabels } from './labels.ts'
import { weightText } from './weights.ts'

/** What differs between the recipes of two pictures; `key` tells the rows apart. */
export type Difference = { key: string; label: string; left: string; right: string }

const none = '–'

/** In the order in which people look: words first, then what draws them, then numbers. */
export function differences(left: RecalledRecipe | undefined, right: RecalledRecipe | undefined): Difference[] {
  const [a, b] = [factsOf(left), factsOf(right)]
  const rows = a.map(([key, label, value], i): Difference => ({ key, label, left: value, right: b[i][2] }))
  return [...rows, ...adapterRows(left, right)].filter((row) => row.left !== row.right)
}

type Fact = readonly [key: string, label: string, value: string]

function factsOf(recipe: RecalledRecipe | undefined): Fact[] {
  const { prompt, negativePrompt, width, height, steps, seed, sampler, schedule, guidanceScale, strength, speed } =
    recipe?.request ?? {}
  const say = (value: string | number | undefined) => (value === undefined || value === '' ? none : String(value))
  const hasSource = recipe?.source !== undefined
  return [
    ['prompt', t('Prompt'), say(prompt)],
    ['negative', t('Negative prompt'), say(negativePrompt)],
    ['model', t('Model'), say(recipe?.model?.name)],
    ['size', t('Size'), width && height ? `${width} × ${height}` : none],
    ['seed', t('Seed'), say(seed)],
    ['steps', t('Steps'), say(steps)],
    ['guidance', t('Guidance scale'), say(guidanceScale)],
    ['sampler', t('Sampler'), sampler ? samplerLabels[sampler] : none],
    ['schedule', t('Schedule'), schedule ? scheduleLabels[schedule] : none],
    ['speed', t('Computed'), speed === 'faster' ? t('faster') : speed === 'fastest' ? t('fastest') : t('exactly')],
    ['source', t('Source image'), say(recipe?.source?.name)],
    ['strength', t('Strength'), hasSource ? say(strength) : none],
  ]
}

/** One row for each adapter of either picture. */
function adapterRows(left: RecalledRecipe | undefined, right: RecalledRecipe | undefined): Difference[] {
  const keyOf = ({ sha256, name }: RecalledAdapter) => sha256 ?? name
  const all = [...(left?.adapters ?? []), ...(right?.adapters ?? [])]
  const keys = [...new Set(all.map(keyOf))]
  const useOf = (recipe: RecalledRecipe | undefined, key: string) =>
    recipe?.adapters
      .filter((one) => keyOf(one) === key)
      .map(useText)
      .join(', ') || none
  return keys.map((key) => ({
    key,
    label: all.find((one) => keyOf(one) === key)!.name.replace(/\.safetensors$/i, ''),
    left: useOf(left, key),
    right: useOf(right, key),
  }))
}

function useText({ weight, textWeight, start, end, ramp }: RecalledAdapter): string {
  const percent = (share: number) => Math.round(share * 100)
  const parts = [weight === undefined ? t('as it prefers') : weightText(weight)]
  if (textWeight !== undefined && textWeight !== weight)
    parts.push(t('text {weight}', { weight: weightText(textWeight) }))
  if (start > 0 || end < 1) parts.push(`${percent(start)}–${percent(end)} %`)
  if (ramp === 'ease-in') parts.push(t('ease in'))
  else if (ramp === 'ease-out') parts.push(t('ease out'))
  else if (ramp !== 'flat') parts.push(ramp.map(([at, share]) => `${percent(at)}:${share}`).join(' '))
  return parts.join(', ')
}

/** The divider of two pictures by keys: a hundredth, with Shift a tenth. undefined for other keys. */
export function dividerAfter(
  share: number,
  { key, shiftKey }: Pick<KeyboardEvent, 'key' | 'shiftKey'>,
): number | undefined {
  const step = shiftKey ? 10 : 1
  const percent = Math.round(share * 100)
  const targets: Record<string, number> = {
    ...{ ArrowLeft: percent - step, ArrowDown: percent - step, ArrowRight: percent + step, ArrowUp: percent + step },
    ...{ PageDown: percent - 10, PageUp: percent + 10, Home: 0, End: 100 },
  }
  const target = targets[key]
  return target === undefined ? undefined : Math.min(100, Math.max(0, target)) / 100
}
