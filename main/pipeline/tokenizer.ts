/** CLIP's byte-pair tokenizer: text to ids without start, end and padding. */
export interface Tokenizer {
  encode(text: string): number[]
}
