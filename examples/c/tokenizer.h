// Texts to token ids, as tokenizer.json says: BERT's WordPiece, and GPT-2's and RoBERTa's byte-level BPE.
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "common.h"
#include "json.h"

typedef struct Tokenizer Tokenizer;

// Ends the program with one line for a tokenizer of another kind.
Tokenizer *tokenizer_open(const Json *data);

// The token ids of a text of valid UTF-8, without a limit and without the tokens around every text.
void tokenizer_encode(const Tokenizer *tokenizer, Bytes text, Numbers *ids);

// The ids around every text: [CLS] and [SEP].
const Numbers *tokenizer_before(const Tokenizer *tokenizer);
const Numbers *tokenizer_after(const Tokenizer *tokenizer);

#endif
