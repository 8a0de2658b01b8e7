import { spawn, type ChildProcess } from 'node:child_process'

/** A screen for windows that nobody looks at. Where there is a real one it is used, and closing does nothing. */
export async function openScreen(): Promise<{ env: NodeJS.ProcessEnv; close: () => void }> {
  if (process.platform !== 'linux' || process.env.DISPLAY) return { env: {}, close: () => {} }
  const server = spawn('Xvfb', ['-displayfd', '1', '-screen', '0', '1600x1000x24', '-nolisten', 'tcp'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const display = await displayOf(server)
  return { env: { DISPLAY: `:${display}` }, close: () => void server.kill() }
}

/** Xvfb takes the first free number and writes it once it accepts windows. */
function displayOf(server: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    server.stdout!.on('data', (data: Buffer) => {
      text += data.toString()
      if (text.includes('\n')) resolve(text.trim())
    })
    server.on('error', () => reject(new Error('Xvfb is not installed; on Debian: apt-get install xvfb')))
    server.on('exit', (code) => reject(new Error(`Xvfb ended with code ${code}`)))
  })
}
