import { VignetteError } from './errors.ts'

/** A parsed config.json of diffusers or transformers, not yet looked at. */
export type ConfigJson = Readonly<Record<string, unknown>>

/** Typed access to a config.json; a field of another type is the file's fault, so it is told to the person. */
export function readConfig(what: string, json: ConfigJson) {
  const wrong = (field: string, wanted: string) =>
    new VignetteError(
      'checkpoint-unsupported',
      `The configuration of the ${what} has ${field} = ${JSON.stringify(json[field])}, where ${wanted} was expected.`,
      {
        hint: 'This model is of a kind that Vignette does not know.',
      },
    )
  const isNumbers = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((item) => typeof item === 'number')
  const absent = (field: string) => json[field] === undefined || json[field] === null

  return {
    /** Throws when the field is there and not `wanted`: the network would be another one. */
    require(field: string, wanted: string | number | boolean | null): void {
      if (json[field] !== undefined && json[field] !== wanted) throw wrong(field, JSON.stringify(wanted))
    },
    has: (field: string): boolean => !absent(field),
    number(field: string, fallback?: number): number {
      const value = absent(field) ? fallback : json[field]
      if (typeof value !== 'number') throw wrong(field, 'a number')
      return value
    },
    boolean(field: string, fallback: boolean): boolean {
      const value = absent(field) ? fallback : json[field]
      if (typeof value !== 'boolean') throw wrong(field, 'true or false')
      return value
    },
    numbers(field: string): number[] {
      const value = json[field]
      if (!isNumbers(value)) throw wrong(field, 'a list of numbers')
      return value
    },
    /** A list, or one number for every one of `length` places. */
    perLevel(field: string, length: number, fallback?: number): number[] {
      const value = absent(field) ? fallback : json[field]
      if (typeof value === 'number') return new Array<number>(length).fill(value)
      if (!isNumbers(value) || value.length !== length) throw wrong(field, `one number or ${length} of them`)
      return value
    },
    strings(field: string, fallback?: string[]): string[] {
      const value = absent(field) ? fallback : json[field]
      if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
        throw wrong(field, 'a list of words')
      return value
    },
    oneOf<T extends string>(field: string, allowed: readonly T[], fallback: T): T {
      const value = absent(field) ? fallback : json[field]
      const found = allowed.find((item) => item === value)
      if (found === undefined) throw wrong(field, allowed.join(' or '))
      return found
    },
    unsupported: wrong,
  }
}
