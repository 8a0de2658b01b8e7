import type { TensorRole } from './types.ts'

// What the end of a tensor's name says (formats.md, section 5.2). The longest ending that is known counts; what stands
// before it is the module.

export type Ending = TensorRole | 'alpha' | 'scale' | 'on_input' | 'weight' | 'bias' | 'shira_index' | 'unsupported'

/** An adapter's name inside PEFT's keys: `lora_A.default.weight`. */
const named = String.raw`(?:\.[A-Za-z0-9_-]{1,40})?`

const endings: readonly (readonly [RegExp, Ending])[] = [
  [/[._]lora[._]down\.weight$/, 'down'],
  [/[._]lora[._]up\.weight$/, 'up'],
  [/[._]lora_mid\.weight$/, 'mid'],
  [/\.lora_linear_layer\.down\.weight$/, 'down'],
  [/\.lora_linear_layer\.up\.weight$/, 'up'],
  [/\.lora_layer\.down\.weight$/, 'down'],
  [/\.lora_layer\.up\.weight$/, 'up'],
  [new RegExp(String.raw`\.lora_A${named}\.weight$`), 'down'],
  [new RegExp(String.raw`\.lora_B${named}\.weight$`), 'up'],
  [/\.lora_A$/, 'down'],
  [/\.lora_B$/, 'up'],
  [new RegExp(String.raw`\.lora_B${named}\.bias$`), 'up_bias'],
  [new RegExp(String.raw`\.lora_magnitude_vector${named}(?:\.weight)?$`), 'magnitude'],
  [/\.dora_scale$/, 'magnitude'],
  [/\.(?:diff|w_norm)$/, 'diff'],
  [/\.(?:diff_b|b_norm)$/, 'diff_b'],
  [/\.hada_w1_a$/, 'hada_w1_a'],
  [/\.hada_w1_b$/, 'hada_w1_b'],
  [/\.hada_w2_a$/, 'hada_w2_a'],
  [/\.hada_w2_b$/, 'hada_w2_b'],
  [/\.hada_t1$/, 'hada_t1'],
  [/\.hada_t2$/, 'hada_t2'],
  [/\.lokr_w1$/, 'lokr_w1'],
  [/\.lokr_w1_a$/, 'lokr_w1_a'],
  [/\.lokr_w1_b$/, 'lokr_w1_b'],
  [/\.lokr_w2$/, 'lokr_w2'],
  [/\.lokr_w2_a$/, 'lokr_w2_a'],
  [/\.lokr_w2_b$/, 'lokr_w2_b'],
  [/\.lokr_t2$/, 'lokr_t2'],
  [/\.oft_blocks$/, 'oft_blocks'],
  [/\.rescale$/, 'oft_rescale'],
  [/\.oft_R\.weight$/, 'oft_blocks'],
  [/\.oft_[rs]$|\.boft_[RPs]$/, 'unsupported'],
  [/\.ia3_l$/, 'ia3'],
  [/\.on_input$/, 'on_input'],
  [/\.a1\.weight$/, 'a1'],
  [/\.a2\.weight$/, 'a2'],
  [/\.b1\.weight$/, 'b1'],
  [/\.b2\.weight$/, 'b2'],
  [/\.bm\.weight$/, 'bm'],
  [/\.shira_weight$/, 'sparse_delta'],
  [/\.shira_indices$/, 'shira_index'],
  [/\.sparse_index$/, 'sparse_index'],
  [/\.sparse_delta$/, 'sparse_delta'],
  [/\.(?:set_weight|reshape_weight|bias_indices|bias_values|bias_size)$/, 'unsupported'],
  [/\.alpha$/, 'alpha'],
  [/\.scale$/, 'scale'],
  [/\.weight$/, 'weight'],
  [/\.bias$/, 'bias'],
]

/** The commonest endings of all, looked at first: forty patterns over a name take 4 µs. Each is one of the patterns above. */
const common: readonly (readonly [string, Ending])[] = [
  ['.lora_down.weight', 'down'],
  ['.lora_up.weight', 'up'],
  ['.lora_A.weight', 'down'],
  ['.lora_B.weight', 'up'],
  ['.alpha', 'alpha'],
]

export type SplitName = { module: string; ending: Ending }

/** Module and meaning of a tensor of an adapter file; undefined where nothing is known that the name could end with. */
export function splitName(name: string): SplitName | undefined {
  for (const [text, ending] of common) {
    if (name.length > text.length && name.endsWith(text)) return { module: name.slice(0, -text.length), ending }
  }
  for (const [pattern, ending] of endings) {
    const found = pattern.exec(name)
    if (!found || found.index === 0) continue
    return { module: name.slice(0, found.index), ending }
  }
  return undefined
}
