import { basename, extname } from 'node:path'
import { VignetteError } from '../errors.ts'

const ascii = (bytes: Uint8Array, length: number) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(length, bytes.length)).toString('latin1')

/** Extensions under which PyTorch saves pickles: files that can run any program while they are being opened. */
const pickleExtensions = new Set(['.ckpt', '.pt', '.pth', '.bin', '.pkl', '.pickle'])

export function pickleError(path: string): VignetteError {
  return new VignetteError(
    'checkpoint-unsafe',
    `${basename(path)} is a pickle: a file of this kind can run programs when it is opened, so Vignette does not open it.`,
    { hint: 'Look for the .safetensors version of this model, or convert the file with a tool you trust.' },
  )
}

/** Recognises by their first bytes the things that get renamed to .safetensors, and says which one it is. */
export function refuseOtherFormats(path: string, start: Uint8Array): void {
  const name = basename(path)
  const text = ascii(start, 4096)
  if (text.startsWith('PK\u0003\u0004')) {
    if (/\.pkl/.test(text) || pickleExtensions.has(extname(path).toLowerCase())) throw pickleError(path)
    throw new VignetteError('file-unreadable', `${name} is a ZIP archive, not a model.`, {
      hint: 'Unpack it and import the .safetensors file or the folder inside.',
    })
  }
  // A pickle begins with "protocol 2…5"; a safetensors file could only by having a header of that many bytes.
  const isPickle = start[0] === 0x80 && start[1] >= 2 && start[1] <= 5 && !looksLikeHeader(start)
  if (isPickle) throw pickleError(path)
  if (text.startsWith('GGUF') || text.startsWith('ggml') || text.startsWith('lmgg')) {
    throw new VignetteError('checkpoint-unsupported', `${name} is a GGUF file, which Vignette cannot read.`, {
      hint: 'Look for the .safetensors version of this model.',
    })
  }
  if (/^\s*<(!doctype|html|\?xml|head|body)/i.test(text)) {
    throw new VignetteError(
      'file-unreadable',
      `${name} is a web page, not a model: the download fetched an error or sign-in page.`,
      {
        hint: 'Download the file again in a browser and check that it is hundreds of megabytes large.',
      },
    )
  }
  if (text.startsWith('version https://git-lfs.github.com')) {
    throw new VignetteError(
      'file-unreadable',
      `${name} is only a pointer to the model (Git LFS), not the model itself.`,
      {
        hint: 'Fetch the large files too, for example with "git lfs pull".',
      },
    )
  }
  if (pickleExtensions.has(extname(path).toLowerCase()) && !looksLikeHeader(start)) throw pickleError(path)
  // Eight letters as a length would be a header of more bytes than there are disks.
  if (
    start.length >= 8 &&
    start.subarray(0, 8).every((byte) => byte >= 0x20 || byte === 9 || byte === 10 || byte === 13)
  ) {
    throw new VignetteError('file-unreadable', `${name} is a text or another kind of file, not a .safetensors file.`, {
      hint: 'Choose a file that ends in .safetensors.',
    })
  }
}

/** Eight length bytes below the header cap, then white space or `{`. */
function looksLikeHeader(start: Uint8Array): boolean {
  return (
    start.length > 8 &&
    start[4] === 0 &&
    start[5] === 0 &&
    start[6] === 0 &&
    start[7] === 0 &&
    /[\s{]/.test(String.fromCharCode(start[8]))
  )
}
