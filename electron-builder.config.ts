import type { Configuration } from 'electron-builder'

// How Vignette is packaged. `npm run package` (scripts/package.ts) reads this and fills in the Electron at hand.

/**
 * What goes in: the build, the starter's weights, and packages with native code; of ONNX Runtime's package, which brings
 * the binaries of every system, without those of the `others`.
 */
const filesBut = (...others: string[]) => [
  'out/**',
  'package.json',
  'LICENSE',
  'NOTICE',
  'models/starter/**',
  'models/tokenizer/**',
  '!models/**/*.{ts,md,jpg}',
  '!node_modules/@libsql/*-musl',
  '!node_modules/**/*.{md,map,d.ts,d.cts,d.mts,ts}',
  ...others.map((name) => `!node_modules/onnxruntime-node/bin/napi-v6/${name}`),
]

const config: Configuration = {
  appId: 'art.vignette.app',
  productName: 'Vignette',
  copyright: 'The Vignette authors. Apache-2.0.',
  directories: { output: 'dist', buildResources: 'dist/resources' },
  asar: true,
  // The engine is a process of its own, which may run under another Node than Electron's: its files lie open. So do
  // the pictures' weights, which ONNX Runtime maps into memory.
  asarUnpack: ['out/main/**', 'models/**', 'node_modules/**', 'package.json'],
  npmRebuild: false, // everything native is prebuilt
  electronLanguages: ['en-US', 'de'],
  electronFuses: {
    runAsNode: false,
    enableCookieEncryption: true,
    enableNodeOptionsEnvironmentVariable: false,
    enableNodeCliInspectArguments: false,
    enableEmbeddedAsarIntegrityValidation: true,
    onlyLoadAppFromAsar: true,
    resetAdHocDarwinSignature: true,
  },
  fileAssociations: [
    { ext: 'vgset', name: 'Vignette adapter set', role: 'Editor', mimeType: 'application/x-vignette-set' },
    { ext: 'vgstory', name: 'Vignette story', role: 'Editor', mimeType: 'application/x-vignette-story' },
    {
      ext: 'safetensors',
      name: 'Adapter or model',
      role: 'Viewer',
      rank: 'Alternate',
      mimeType: 'application/x-safetensors',
    },
  ],
  publish: null, // updates are only ever told about
  linux: {
    target: ['AppImage', 'deb'],
    executableName: 'vignette',
    category: 'Graphics',
    synopsis: 'Pictures and whole picture books, made on your own machine',
    description: 'Makes pictures from words on your own computer. Nothing is sent anywhere.',
    maintainer: 'The Vignette authors <hello@vignette.invalid>',
    files: filesBut('darwin', 'win32'),
  },
  deb: {
    depends: ['libgtk-3-0', 'libnss3', 'libasound2', 'libgbm1', 'libxss1', 'libxtst6', 'libnotify4', 'xdg-utils'],
    packageCategory: 'graphics',
  },
  win: {
    target: ['nsis'],
    files: filesBut('darwin', 'linux'),
  },
  nsis: {
    oneClick: false,
    perMachine: false,
    allowToChangeInstallationDirectory: true,
    deleteAppDataOnUninstall: false,
  },
  mac: {
    target: ['dmg', 'zip'],
    category: 'public.app-category.graphics-design',
    hardenedRuntime: true,
    darkModeSupport: true,
    files: filesBut('linux', 'win32'),
  },
}

export default config
