import { protocol, type CustomScheme } from 'electron'
import { readFile } from 'node:fs/promises'
import { extname, join, resolve, sep } from 'node:path'
import { appScheme, contentSecurityPolicy, imageScheme } from './security.ts'

/** Before the application is ready: both schemes are origins of their own, without any right to reach the network. */
export function registerSchemes(): void {
  const privileges: CustomScheme['privileges'] = { standard: true, secure: true, supportFetchAPI: true, stream: true }
  protocol.registerSchemesAsPrivileged([
    { scheme: appScheme, privileges },
    { scheme: imageScheme, privileges },
  ])
}

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.webp': 'image/webp',
  '.woff2': 'font/woff2',
}

/** Where the files of the library lie, by the id of a picture. */
export type PictureFiles = {
  fileOf(id: string): string | undefined
  /** A small version, which may have to be made first; the picture itself where none can be made. */
  thumbOf(id: string): Promise<string | undefined>
}

/** Serves the built window from `folder`, saved pictures by their id and small versions of them; anything else is not found. */
export function serveSchemes(folder: string, pictures: PictureFiles): void {
  const base = resolve(folder)
  protocol.handle(appScheme, async (request) => {
    const { host, pathname } = new URL(request.url)
    const path = resolve(join(base, decodeURIComponent(pathname === '/' ? '/index.html' : pathname)))
    if (host !== 'app' || !path.startsWith(base + sep)) return notFound()
    return respond(path, { 'content-security-policy': contentSecurityPolicy(`${imageScheme}:`) })
  })
  protocol.handle(imageScheme, async (request) => {
    const { host, pathname } = new URL(request.url)
    const isThumb = pathname === '/thumb'
    const isPicture = pathname === '/' || pathname === ''
    const path = isThumb ? await pictures.thumbOf(host) : isPicture ? pictures.fileOf(host) : undefined
    // A picture never changes under its id.
    return path === undefined ? notFound() : respond(path, { 'cache-control': 'private, max-age=31536000, immutable' })
  })
}

async function respond(path: string, headers: Record<string, string>): Promise<Response> {
  try {
    const body = await readFile(path)
    const type = types[extname(path)] ?? 'application/octet-stream'
    return new Response(body, { headers: { 'content-type': type, 'x-content-type-options': 'nosniff', ...headers } })
  } catch {
    return notFound()
  }
}

function notFound(): Response {
  return new Response('not found', { status: 404, headers: { 'content-type': 'text/plain' } })
}
