import * as z from 'zod'
import type { EngineJob } from '../engine/protocol.ts'
import { JsonFile, readJson } from './files.ts'

type Request = Pick<EngineJob['request'], 'model' | 'width' | 'height' | 'guidanceScale' | 'speed' | 'steps'> &
  Partial<Pick<EngineJob['request'], 'initImage' | 'strength' | 'adapters'>>

/** How long the parts of one picture took, in milliseconds, and how large its file was. */
const Measured = z.object({ before: z.number(), step: z.number(), after: z.number(), bytes: z.number() })
type Measured = z.infer<typeof Measured>

/** Pictures that take equally long: the same model, size, passes a step and speed. */
const Like = z.object({ model: z.string(), pixels: z.number(), passes: z.number(), speed: z.string() })
type Like = z.infer<typeof Like>

const Stored = z.object({
  version: z.literal(1),
  known: z.array(z.object({ like: Like, measured: z.array(Measured) })),
  distillers: z.array(z.string()).default([]),
})
type Known = z.infer<typeof Stored>['known'][number]

/** What a job has told about its time so far. All times come from the caller's clock. */
export type JobClock = {
  like: Like
  startedAt: number
  firstStepAt?: number
  /** When each step ended. */
  stepTimes: number[]
  /** What was said last, and the least that was ever said. */
  said?: { ms: number; at: number; least: number }
}

const remembered = 5
const rememberedLikes = 60
/** Of a PNG, while none of the model was made. */
const usualBytesPerPixel = 1.4
/** Below this the screen says "1 s" whatever it is. */
const smallestSaidMs = 1000

/**
 * Learns from finished pictures how long the next will take: the median of the last five like it, so that one slow
 * picture does not count for long. Kept in a file, so that a new start knows at once.
 */
export class Pace {
  #known: Known[] = []
  /** Adapters that stand in for the second pass of guidance. */
  readonly #distillers = new Set<string>()
  readonly #file: JsonFile<z.infer<typeof Stored>> | undefined

  constructor(file?: string) {
    if (file !== undefined)
      this.#file = new JsonFile(file, () => ({ version: 1, known: this.#known, distillers: [...this.#distillers] }))
  }

  static async open(file: string): Promise<Pace> {
    const pace = new Pace(file)
    const stored = await readJson(file, Stored)
    pace.#known = stored?.known ?? []
    for (const adapter of stored?.distillers ?? []) pace.#distillers.add(adapter)
    return pace
  }

  /** A picture with this adapter takes one pass a step, whatever its guidance. Kept with the next time that is. */
  distils(adapter: string): void {
    this.#distillers.add(adapter)
  }

  start(request: Request, now: number): JobClock {
    return { like: this.#likeOf(request), startedAt: now, stepTimes: [] }
  }

  finished({ like, startedAt, firstStepAt, stepTimes }: JobClock, now: number, bytes: number): void {
    const step = stepMs(firstStepAt, stepTimes)
    if (firstStepAt === undefined || step === undefined) return
    const measured = { before: firstStepAt - startedAt, step, after: now - stepTimes[stepTimes.length - 1], bytes }
    const before = this.#known.find((one) => isSame(one.like, like))?.measured ?? []
    const others = this.#known.filter((one) => !isSame(one.like, like))
    this.#known = [{ like, measured: [...before, measured].slice(-remembered) }, ...others].slice(0, rememberedLikes)
    void this.#file?.save().catch(() => {}) // learnt again at the next picture
  }

  /** Milliseconds to the end of the job after `done` of its steps, or undefined while there is nothing to go by. */
  remaining(clock: JobClock, done: number, steps: number, now: number): number | undefined {
    const { firstStepAt, stepTimes, startedAt } = clock
    const known = this.#of(clock.like)
    const step = stepMs(firstStepAt, stepTimes) ?? known?.step
    if (step === undefined) return undefined
    // Decoding has not been seen yet on the very first picture: two steps are a fair guess for this kind of network.
    const after = known?.after ?? 2 * step
    const sinceLast = now - (stepTimes[stepTimes.length - 1] ?? firstStepAt ?? startedAt)
    const left =
      firstStepAt === undefined
        ? Math.max(0, (known?.before ?? 0) - (now - startedAt)) + (steps - done) * step + after
        : (steps - done) * step + after - sinceLast
    return Math.max(0, left)
  }

  /**
   * What to say: smoothed, so that it counts down evenly. `isSlow` when it is more than a fifth above the least that was
   * said of this job: then the person is owed a reason.
   */
  say(clock: JobClock, done: number, steps: number, now: number): { ms: number; isSlow: boolean } | undefined {
    const raw = this.remaining(clock, done, steps, now)
    if (raw === undefined) return undefined
    const { said } = clock
    const expected = said ? Math.max(0, said.ms - (now - said.at)) : raw
    const ms = expected + (raw < expected ? 0.5 : 0.3) * (raw - expected)
    const least = Math.min(said?.least ?? ms, ms)
    clock.said = { ms, at: now, least }
    return { ms, isSlow: ms > Math.max(1.2 * least, smallestSaidMs) }
  }

  /** Of a picture that is not begun: its time where one of its model has been made, and the size of its file. */
  estimate(request: Request): { ms?: number; bytes: number } {
    const like = this.#likeOf(request)
    const known = this.#of(like)
    if (known === undefined) return { bytes: usualBytesPerPixel * like.pixels }
    const share = request.initImage === undefined ? 1 : (request.strength ?? 1)
    return { ms: Math.max(1, Math.ceil(share * request.steps)) * known.step + known.after, bytes: known.bytes }
  }

  #likeOf({ model, width, height, guidanceScale, speed, adapters = [] }: Request): Like {
    // Without guidance, or with an adapter in its place, each step is one pass instead of two.
    const isOnePass = guidanceScale === 1 || adapters.some(({ file }) => this.#distillers.has(file))
    return { model, pixels: width * height, passes: isOnePass ? 1 : 2, speed }
  }

  /** Medians of pictures like this, else of the model's most alike ones, by the number of pixels and passes. */
  #of(like: Like): Measured | undefined {
    const ofModel = this.#known.filter(({ like: { model } }) => model === like.model)
    const distance = (one: Like) =>
      Math.abs(Math.log(one.pixels / like.pixels)) +
      Math.abs(Math.log(one.passes / like.passes)) +
      (one.speed === like.speed ? 0 : 1)
    const nearest = ofModel.reduce<Known | undefined>(
      (best, one) => (best === undefined || distance(one.like) < distance(best.like) ? one : best),
      undefined,
    )
    if (nearest === undefined) return undefined
    const pixels = like.pixels / nearest.like.pixels
    const part = (key: keyof Measured) => median(nearest.measured.map((one) => one[key]))!
    return {
      before: part('before'),
      step: part('step') * pixels * (like.passes / nearest.like.passes),
      after: part('after') * pixels,
      bytes: part('bytes') * pixels,
    }
  }
}

function isSame(a: Like, b: Like): boolean {
  return a.model === b.model && a.pixels === b.pixels && a.passes === b.passes && a.speed === b.speed
}

/** Median time between steps; the first is measured from the start of denoising. */
function stepMs(firstStepAt: number | undefined, stepTimes: readonly number[]): number | undefined {
  if (firstStepAt === undefined) return undefined
  const marks = [firstStepAt, ...stepTimes]
  return median(marks.slice(1).map((time, i) => time - marks[i]))
}

function median(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}
