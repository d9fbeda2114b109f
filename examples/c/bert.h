// BERT's tokenizer: clean the text, split it into words, take the longest tokens that fit.
#ifndef BERT_H
#define BERT_H

#include "json.h"
#include "vocabulary.h"

typedef struct {
    bool clean, chinese, strip, lower;
    Bytes prefix;
    uint32_t unknown, longest;
} Bert;

Bert bert_open(const Json *data, const Vocabulary *vocabulary);
// The text in UTF-8 after the normalizer; the caller frees it.
Bytes bert_normalize(const Bert *bert, Bytes text);
void bert_tokens(const Bert *bert, const Vocabulary *vocabulary, Bytes normalized, Numbers *ids);

#endif
