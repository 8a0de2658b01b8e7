/** How long the parts of one picture took, in milliseconds. */
type Measured = { before: number; step: number; after: number }

/** What a job has told about its time so far. All times come from the caller's clock. */
export type JobClock = {
  key: string
  pictureStartedAt: number
  firstStepAt?: number
  /** When each step ended. */
  stepTimes: number[]
  denoisedAt?: number
}

const remembered = 5

/**
 * Learns from finished pictures how long the next will take. Times are kept per model and size (`key`), since nothing
 * else changes them as much; the median of the last five, so that one slow picture does not count for long.
 */
export class Pace {
  readonly #measured = new Map<string, Measured[]>()

  finished(clock: JobClock, now: number): void {
    if (clock.firstStepAt === undefined || clock.stepTimes.length === 0) return
    const last = clock.stepTimes[clock.stepTimes.length - 1]
    const list = this.#measured.get(clock.key) ?? []
    const measured = { before: clock.firstStepAt - clock.pictureStartedAt, step: stepMs(clock)!, after: now - last }
    this.#measured.set(clock.key, [...list, measured].slice(-remembered))
  }

  /** Milliseconds to the end of the job, or undefined while there is nothing to go by. */
  remaining(clock: JobClock, steps: number, picturesAfter: number, now: number): number | undefined {
    const known = this.#measured.get(clock.key) ?? []
    const step = stepMs(clock) ?? median(known.map((one) => one.step))
    if (step === undefined) return undefined
    const done = clock.stepTimes.length
    // Decoding has not been seen yet on the very first picture: two steps are a fair guess for this kind of network.
    const after = median(known.map((one) => one.after)) ?? 2 * step
    const before = median(known.map((one) => one.before)) ?? 0
    const sinceLast = now - (clock.stepTimes[done - 1] ?? clock.firstStepAt ?? clock.pictureStartedAt)
    const current =
      clock.firstStepAt === undefined
        ? Math.max(0, before - (now - clock.pictureStartedAt)) + steps * step + after
        : (steps - done) * step + after - sinceLast
    return Math.max(0, current) + picturesAfter * (steps * step + after)
  }
}

/** Median time between steps; the first is measured from the start of denoising. */
function stepMs(clock: JobClock): number | undefined {
  if (clock.firstStepAt === undefined) return undefined
  const marks = [clock.firstStepAt, ...clock.stepTimes]
  return median(marks.slice(1).map((time, i) => time - marks[i]))
}

function median(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}
