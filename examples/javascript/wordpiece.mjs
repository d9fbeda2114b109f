// BERT's tokenizer: clean, split, and take the longest token that fits, as tokenizer.json says.

const CHINESE = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
// Of ASCII, all signs; elsewhere, what Unicode takes for punctuation.
const PUNCTUATION = /([!-/:-@[-`{-~]|\p{P})/gu;
const DROPPED = /[\0\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;

export class WordPiece {
  /** @param {object} data the content of tokenizer.json
   *  @param {number} maxLength most tokens of a text, special ones included */
  constructor(data, maxLength) {
    const kinds = [data.model.type, data.normalizer?.type, data.pre_tokenizer?.type];
    if (kinds.join() !== "WordPiece,BertNormalizer,BertPreTokenizer") {
      throw new Error(`this example tokenizes as BERT does, and the bundle has ${kinds.join(", ")}`);
    }
    this.vocabulary = new Map(Object.entries(data.model.vocab));
    this.model = data.model;
    this.normalizer = data.normalizer;
    this.special = new Map(data.added_tokens.map((t) => [t.content, t.id]));
    const escaped = [...this.special.keys()].map((s) => s.replace(/[[\]().*+?^${}|\\]/g, "\\$&"));
    this.added = new RegExp(`(${escaped.join("|")})`);
    const ids = data.post_processor.special_tokens;
    [this.before, this.after] = [ids["[CLS]"].ids, ids["[SEP]"].ids];
    this.maxLength = maxLength;
  }

  /** Token ids of a text, cut to the longest that the model takes. */
  encode(text) {
    const ids = [];
    for (const part of text.split(this.added)) {
      if (this.special.has(part)) ids.push(this.special.get(part));
      else for (const word of this.words(part)) ids.push(...this.pieces(word));
    }
    // Cut first: the end of a text is marked whatever its length.
    const room = this.maxLength - this.before.length - this.after.length;
    return [...this.before, ...ids.slice(0, room), ...this.after];
  }

  words(text) {
    const { clean_text, handle_chinese_chars, strip_accents, lowercase } = this.normalizer;
    if (clean_text) text = text.replace(DROPPED, "").replace(/\p{White_Space}/gu, " ");
    if (handle_chinese_chars) text = text.replace(CHINESE, " $& ");
    if (strip_accents ?? lowercase) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    if (lowercase) text = Array.from(text, (c) => c.toLowerCase()).join("");
    return text.replace(PUNCTUATION, " $1 ").split(/\p{White_Space}+/u).filter(Boolean);
  }

  pieces(word) {
    const unknown = [this.vocabulary.get(this.model.unk_token)];
    const letters = Array.from(word);
    if (letters.length > this.model.max_input_chars_per_word) return unknown;
    const found = [];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length;
      let id;
      for (; end > start; end--) {
        const prefix = start ? this.model.continuing_subword_prefix : "";
        id = this.vocabulary.get(prefix + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return unknown;
      found.push(id);
      start = end;
    }
    return found;
  }
}
