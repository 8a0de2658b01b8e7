import { readFile } from 'node:fs/promises'
import { gunzipSync } from 'node:zlib'

/**
 * Text of CLIP's 48,894 byte-pair merges, one `left right` a line. A bundle that does not keep this file's place in the
 * tree passes the path of clip-merges.txt.gz, or the bytes themselves.
 */
export async function readClipMerges(source: string | URL | Uint8Array = defaultFile()): Promise<string> {
  const packed = source instanceof Uint8Array ? source : await readFile(source)
  return gunzipSync(packed).toString('utf8')
}

function defaultFile(): URL {
  return new URL('./clip-merges.txt.gz', import.meta.url)
}
