import type { Configuration } from 'electron-builder'
import { spawnSync } from 'node:child_process'
import { chmod, cp, mkdir, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'

const iconSizes = [16, 32, 48, 64, 128, 256, 512]

/**
 * A Debian package of an unpacked application, by Debian's own tool. electron-builder makes one, too, but with a tool that
 * it has to download first. Names, texts and dependencies come from the same configuration. Resolves with the file.
 */
export async function buildDeb(
  folder: string,
  out: string,
  config: Configuration,
  version: string,
  icon: string,
): Promise<string> {
  const { productName, fileAssociations } = config
  const linux = config.linux ?? {}
  const deb = config.deb ?? {}
  const name = linux.executableName ?? 'vignette'
  const tree = join(out, 'deb')
  await rm(tree, { recursive: true, force: true })
  const opt = join(tree, 'opt', productName!)
  await mkdir(opt, { recursive: true })
  await cp(folder, opt, { recursive: true, verbatimSymlinks: true })
  // Chromium's sandbox needs its helper to belong to root where user namespaces are closed.
  await chmod(join(opt, 'chrome-sandbox'), 0o4755)

  await mkdir(join(tree, 'usr', 'bin'), { recursive: true })
  await symlink(`/opt/${productName}/${name}`, join(tree, 'usr', 'bin', name))
  for (const size of iconSizes) {
    const place = join(tree, `usr/share/icons/hicolor/${size}x${size}/apps`)
    await mkdir(place, { recursive: true })
    await sharp(icon)
      .resize(size, size)
      .png()
      .toFile(join(place, `${name}.png`))
  }
  const associations = [fileAssociations ?? []].flat()
  const types = associations.flatMap(({ mimeType }) => mimeType ?? [])
  await write(
    join(tree, 'usr/share/applications', `${name}.desktop`),
    `[Desktop Entry]
Name=${productName}
Comment=${linux.synopsis}
Exec=/opt/${productName}/${name} %F
Terminal=false
Type=Application
Icon=${name}
StartupWMClass=${productName}
MimeType=${types.join(';')};
Categories=${linux.category};
`,
  )
  await write(
    join(tree, 'usr/share/mime/packages', `${name}.xml`),
    `<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
${associations.map(({ mimeType, name, ext }) => `  <mime-type type="${mimeType}"><comment>${name}</comment><glob pattern="*.${String(ext)}"/></mime-type>`).join('\n')}
</mime-info>
`,
  )
  await write(
    join(tree, 'DEBIAN/control'),
    `Package: ${name}
Version: ${version}
Architecture: ${process.arch === 'x64' ? 'amd64' : process.arch}
Maintainer: ${linux.maintainer}
Installed-Size: ${Math.ceil((await sizeOf(opt)) / 1024)}
Depends: ${(deb.depends ?? []).join(', ')}
Section: ${deb.packageCategory}
Priority: optional
Description: ${linux.synopsis}
 ${linux.description}
`,
  )
  const file = join(out, `${name}_${version}_${process.arch === 'x64' ? 'amd64' : process.arch}.deb`)
  const result = spawnSync('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', tree, file], {
    encoding: 'utf8',
  })
  if (result.status !== 0)
    throw new Error(`dpkg-deb could not build the package: ${result.stderr || String(result.error)}`)
  await rm(tree, { recursive: true, force: true })
  return file
}

async function write(file: string, text: string): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  await writeFile(file, text)
}

async function sizeOf(folder: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) bytes += await sizeOf(path)
    else if (entry.isFile()) bytes += (await stat(path)).size
  }
  return bytes
}
