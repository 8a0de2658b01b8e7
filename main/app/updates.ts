import * as z from 'zod'
import { VignetteError } from '../../models/errors.ts'
import type { UpdateReport } from '../../preload/contract/network.ts'
import type { Network } from './network.ts'

/** One release, as GitHub and those that speak like it list them. */
const Release = z.object({
  tag_name: z.string(),
  body: z.string().nullish(),
  html_url: z.url({ protocol: /^https?$/ }).optional(),
  published_at: z.string().nullish(),
  draft: z.boolean().default(false),
  prerelease: z.boolean().default(false),
})
const maxBytes = 2_000_000
const maxNotes = 20_000

/** Asks the address for releases and says whether one is newer than `version`. Nothing is fetched beyond the list. */
export async function checkForUpdate(
  network: Pick<Network, 'request'>,
  { address, version, now = Date.now }: { address: string; version: string; now?: () => number },
): Promise<UpdateReport> {
  const { status, body } = await network.request('update-check', address, { headers: { accept: 'application/json' } })
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body) {
    parts.push(part)
    if ((bytes += part.length) > maxBytes) throw unreadable(address)
  }
  if (status !== 200) {
    throw new VignetteError('network-failed', `${new URL(address).host} answered with ${status}.`, {
      hint: 'Check the address for updates, or try again later.',
    })
  }
  const releases = readReleases(Buffer.concat(parts).toString('utf8'))
  if (!releases) throw unreadable(address)
  const newest = releases
    .filter(({ draft, prerelease, tag_name }) => !draft && !prerelease && versionParts(tag_name) !== undefined)
    .sort((a, b) => compareVersions(b.tag_name, a.tag_name))[0]
  if (newest === undefined || compareVersions(newest.tag_name, version) <= 0) return { checkedAt: now() }
  const { tag_name, body: notes, html_url, published_at } = newest
  return {
    checkedAt: now(),
    newer: {
      version: tag_name.replace(/^v/, ''),
      notes: (notes ?? '').slice(0, maxNotes),
      ...(html_url === undefined ? {} : { url: html_url }),
      ...(published_at ? { publishedAt: published_at } : {}),
    },
  }
}

function readReleases(text: string): z.infer<typeof Release>[] | undefined {
  try {
    return z.union([z.array(Release), Release.transform((one) => [one])]).safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

function unreadable(address: string): VignetteError {
  return new VignetteError('network-failed', `${new URL(address).host} did not answer with a list of releases.`, {
    hint: 'The address for updates is under Settings, About & updates.',
  })
}

/** `v1.2.3` or `1.2.3-beta` -> [1, 2, 3]; undefined for what is no version. */
function versionParts(text: string): number[] | undefined {
  const match = /^v?(\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  return match ? [match[1], match[2], match[3] ?? '0'].map(Number) : undefined
}

/** Below 0 when `a` is older. What is no version counts as the oldest. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [versionParts(a) ?? [], versionParts(b) ?? []]
  for (let i = 0; i < 3; i++) {
    const difference = (left[i] ?? -1) - (right[i] ?? -1)
    if (difference !== 0) return difference
  }
  // 1.2.3-beta comes before 1.2.3.
  return Number(b.includes('-')) - Number(a.includes('-'))
}
