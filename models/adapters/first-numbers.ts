import { open } from 'node:fs/promises'
import { bytesPerElement, isFloat, toFloat32 } from '../checkpoint/dtypes.ts'
import { readFully } from '../checkpoint/safetensors.ts'
import type { StoredTensor } from '../graph/weights.ts'

/** The first number of each tensor of one file: alphas and scales, which are one number each. NaN where it is empty. */
export async function firstNumbers(tensors: readonly StoredTensor[]): Promise<number[]> {
  if (tensors.length === 0) return []
  const { file } = tensors[0]
  const handle = await open(file, 'r')
  try {
    const numbers: number[] = []
    for (const { dtype, offset, length } of tensors) {
      const bytes = new Uint8Array(Math.min(length, bytesPerElement[dtype]))
      await readFully(handle, bytes, offset, file)
      numbers.push(bytes.length === 0 ? NaN : isFloat(dtype) ? toFloat32(bytes, dtype)[0] : wholeNumber(bytes, dtype))
    }
    return numbers
  } finally {
    await handle.close()
  }
}

/** A little-endian integer. */
function wholeNumber(bytes: Uint8Array, dtype: string): number {
  let value = bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n)
  if (dtype.startsWith('I')) value = BigInt.asIntN(8 * bytes.length, value)
  return Number(value)
}
