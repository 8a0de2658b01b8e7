import js from '@eslint/js'
import { createTypeScriptImportResolver } from 'eslint-import-resolver-typescript'
import { importX } from 'eslint-plugin-import-x'
import svelte from 'eslint-plugin-svelte'
import globals from 'globals'
import ts from 'typescript-eslint'

/** Every request, event and limit that processes share. */
const contract = [
  './preload/contract.ts',
  './preload/contract',
  './preload/limits.ts',
  './preload/defaults.ts',
  './preload/prompt-marks.ts', // what the editor paints is what main resolves
]

/** Who may import what: the table of the architecture, lowest first. A folder may always import itself. */
const rows = [
  { folder: './models/graph', may: ['./models/errors.ts'] },
  { folder: './kernels', may: ['./models/graph'] },
  { folder: './models', may: ['./kernels'] },
  { folder: './preload', may: ['./models/errors.ts'] },
  { folder: './main/pipeline', may: ['./models', ...contract] },
  { folder: './main/export', may: ['./main/pipeline', './models', ...contract] },
  {
    folder: './main/engine',
    may: ['./main/pipeline', './main/export', './models', ...contract],
  },
  {
    folder: './main/app',
    may: [
      './main/engine/client.ts',
      './main/engine/picture-client.ts',
      './main/engine/protocol.ts',
      './main/export',
      './models',
      ...contract,
    ],
  },
  {
    folder: './main/electron',
    may: [
      './main/app',
      './main/engine/client.ts',
      './main/engine/picture-client.ts',
      './main/engine/protocol.ts',
      './models/errors.ts',
      ...contract,
    ],
  },
  {
    folder: './main/cli',
    may: ['./models', './main/pipeline', './main/export', './main/engine', ...contract],
  },
  { folder: './renderer', may: [...contract, './models/errors.ts'] },
]
const ours = ['./models', './kernels', './preload', './main', './renderer']

/** Zones forbid: every top folder of ours but the row's own and what it may import. */
const zones = rows.flatMap(({ folder, may }) =>
  ours
    .filter((from) => !may.includes(from))
    .map((from) => ({
      target: folder,
      from,
      except: [folder, ...may]
        .filter((path) => path === from || path.startsWith(`${from}/`))
        .map((path) => (path === from ? '.' : `.${path.slice(from.length)}`)),
    })),
)

const onlyIn = (name, where) => ({ name, message: `Only ${where} may import ${name}.` })
const electronOnly = onlyIn('electron', 'main/electron and preload/index.ts')
const ortOnly = onlyIn('onnxruntime-node', 'main/engine/networks.ts')
const databaseOnly = onlyIn('libsql', 'main/app/library*.ts')
const network = ['http', 'https', 'node:http', 'node:https', 'node:net', 'node:tls', 'node:dgram', 'undici'].map(
  (name) => onlyIn(name, 'main/app/network.ts'),
)
const restrict = (...paths) => ({ 'no-restricted-imports': ['error', { paths }] })

export default ts.config(
  { ignores: ['out', 'node_modules', 'models/train', 'test/fixtures', '.cache', 'dist'] },
  js.configs.recommended,
  ts.configs.recommended,
  svelte.configs['flat/recommended'],
  {
    plugins: { 'import-x': importX },
    settings: {
      'import-x/resolver-next': [createTypeScriptImportResolver({ extensions: ['.ts', '.svelte.ts', '.svelte'] })],
    },
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones }],
      'import-x/no-cycle': 'error',
      ...restrict(electronOnly, ortOnly, databaseOnly, ...network),
      'no-restricted-globals': [
        'error',
        { name: 'fetch', message: 'Every byte to a network passes main/app/network.ts.' },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'no-console': 'off',
    },
  },
  { files: ['main/electron/**', 'preload/index.ts'], rules: restrict(ortOnly, databaseOnly, ...network) },
  { files: ['main/engine/networks.ts'], rules: restrict(electronOnly, databaseOnly, ...network) },
  { files: ['main/app/library*.ts'], rules: restrict(electronOnly, ortOnly, ...network) },
  {
    files: ['main/app/network.ts'],
    rules: { ...restrict(electronOnly, ortOnly, databaseOnly), 'no-restricted-globals': 'off' },
  },
  // Tests and set-up scripts stand outside the layers: they may reach anything.
  {
    files: ['test/**', 'scripts/**', '*.config.*', '.ci/**'],
    rules: { 'import-x/no-restricted-paths': 'off', 'no-restricted-imports': 'off', 'no-restricted-globals': 'off' },
  },
  {
    files: ['**/*.svelte', '**/*.svelte.ts'],
    languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: ['.svelte'] } },
  },
)
