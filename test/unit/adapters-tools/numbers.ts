import { hashed as hashedDoubles } from '../../golden/networks-cases.ts'

/** Numbers in −1…1 by a hash of the name and the place, as `hashed` of test/golden/hashed.py. */
export const hashed = (name: string, count: number): Float32Array => Float32Array.from(hashedDoubles(name, count))
