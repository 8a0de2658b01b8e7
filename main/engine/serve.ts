import { reportError } from '../../models/errors.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import { chooseDevice, processor } from './device.ts'
import { runJob } from './job.ts'
import type { OpenNetworks } from './networks.ts'
import { openModel } from './open-model.ts'
import type { EngineCommand, EngineEvent, EngineJob, Transport } from './protocol.ts'
import { fourBitReport } from './self-test.ts'

type StartCommand = Extract<EngineCommand, { type: 'start' }>
/** What was started with, and what it led to. `device` rejects when the one asked for cannot be used. */
type Started = { command: StartCommand; device: Promise<DeviceReport> }

/**
 * Answers commands until `stop`: one job at a time, the last model kept loaded for the next job. `entry` is the file
 * that starts the engine as a process, for the test of the graphics card.
 */
export function serve(transport: Transport<EngineEvent, EngineCommand>, entry: string, onStop: () => void): void {
  let started: Started | undefined
  let open: { folder: string; networks: OpenNetworks } | undefined
  let running: { id: string; cancelling: AbortController } | undefined

  transport.onMessage((command) => {
    switch (command.type) {
      case 'start':
        started = start(command)
        break
      case 'run':
        void run(command.job)
        break
      case 'cancel':
        if (running?.id === command.jobId) running.cancelling.abort()
        break
      case 'unload':
        if (!running) void close()
        break
      case 'stop':
        void (open?.networks.release() ?? Promise.resolve()).finally(onStop)
        open = undefined
        break
      default:
        command satisfies never
    }
  })

  function start(command: StartCommand): Started {
    const device = chooseDevice(command.device, entry).then(async (report) =>
      report.provider === 'cpu' ? { ...report, fourBit: await fourBitReport(entry) } : report,
    )
    device.then(
      (report) => transport.post({ type: 'ready', device: report }),
      (error: unknown) => transport.post({ type: 'unavailable', error: reportError(error) }),
    )
    return { command, device }
  }

  async function run(job: EngineJob) {
    if (running) {
      const message = `job ${job.id} came while ${running.id} was running`
      transport.post({ type: 'failed', jobId: job.id, error: { code: 'internal', message } })
      return
    }
    const { signal } = (running = { id: job.id, cancelling: new AbortController() }).cancelling
    let last: EngineEvent = { type: 'finished', jobId: job.id }
    let made = 0
    const draw = async (device: DeviceReport, settings: StartCommand) => {
      const networks = await networksOf(job, device, settings, signal, made)
      for await (const event of runJob(job, networks, made)) {
        // Commands arrive only when the thread is free, and a run of ONNX Runtime never frees it: look for them here.
        await new Promise<void>((resolve) => setImmediate(resolve))
        if (signal.aborted) break
        transport.post(event)
        if (event.type === 'image') made++
      }
    }
    try {
      if (!started) throw new Error('a job came before start')
      const { command } = started
      const device = await started.device
      try {
        await draw(device, command)
      } catch (error) {
        const { code, message } = reportError(error)
        const isOurs = code === 'internal' || code === 'out-of-memory'
        if (device.provider === 'cpu' || command.device !== 'auto' || !isOurs || signal.aborted) throw error
        // Passed the test and fails with a real network: its memory is too small, or a driver has a fault we did not test.
        await close()
        const reason = `${device.name} failed: ${message.split('\n')[0].slice(0, 200)}`
        const report = { ...processor(reason), fourBit: await fourBitReport(entry) }
        started.device = Promise.resolve(report)
        transport.post({
          type: 'notice',
          jobId: job.id,
          message: `The graphics card failed; the processor goes on. ${report.reason}`,
        })
        transport.post({ type: 'ready', device: report })
        await draw(report, command)
      }
      if (signal.aborted) last = { type: 'cancelled', jobId: job.id }
    } catch (error) {
      const report = reportError(error)
      last = signal.aborted ? { type: 'cancelled', jobId: job.id } : { type: 'failed', jobId: job.id, error: report }
      // Whatever went wrong with memory or device, the next job starts from a clean state.
      if (report.code === 'out-of-memory' || report.code === 'internal') await close()
    }
    running = undefined
    transport.post(last)
  }

  async function networksOf(
    { id: jobId, modelFolder }: EngineJob,
    device: DeviceReport,
    { mode, memoryBudgetBytes: budgetBytes, threads }: StartCommand,
    signal: AbortSignal,
    index: number,
  ): Promise<OpenNetworks> {
    if (open?.folder === modelFolder) return open.networks
    await close()
    const { networks, notices } = await openModel(
      modelFolder,
      device,
      { mode, budgetBytes, threads },
      {
        fourBitOnCpu: async () => (device.provider === 'cpu' && device.fourBit) || fourBitReport(entry),
        onWork: () => transport.post({ type: 'phase', jobId, index, phase: 'loading' }),
        signal,
      },
    )
    for (const message of notices) transport.post({ type: 'notice', jobId, message })
    open = { folder: modelFolder, networks }
    return networks
  }

  async function close() {
    const old = open
    open = undefined
    await old?.networks.release()
  }
}
