/** Where the window's own files come from; see images-protocol.ts. */
export const appScheme = 'vignette-app'
export const imageScheme = 'vignette-image'
export const appUrl = `${appScheme}://app/`

/**
 * What the page may load: itself, saved pictures, and previews as data: URLs. No inline scripts or styles, no eval, no
 * network. `extra` lets the development server in.
 */
export function contentSecurityPolicy(imageSources: string, extra = ''): string {
  return [
    `default-src 'none'`,
    `script-src 'self'`,
    `style-src 'self'`,
    `font-src 'self'`,
    `img-src 'self' data: ${imageSources}`,
    `connect-src ${extra || `'none'`}`,
    `base-uri 'none'`,
    `form-action 'none'`,
    `frame-ancestors 'none'`,
  ].join('; ')
}
