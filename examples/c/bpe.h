// Byte-level BPE, as GPT-2 and RoBERTa have it.
#ifndef BPE_H
#define BPE_H

#include "json.h"
#include "vocabulary.h"

typedef struct {
    Merges merges;
    uint32_t bytes[256];  // the id of each byte's character
    uint32_t unknown;
    bool prefix_space, split, whole_words;
} Bpe;

Bpe bpe_open(const Json *data, const Vocabulary *vocabulary);
void bpe_tokens(const Bpe *bpe, const Vocabulary *vocabulary, Bytes text, Numbers *ids);

#endif
