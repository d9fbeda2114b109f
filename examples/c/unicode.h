// UTF-8, and what tokenizers ask of a code point, as `tables.py` found it in the tokenizers library.
#ifndef UNICODE_H
#define UNICODE_H

#include "common.h"

enum {
    BERT_DROPPED = 1,      // control characters, which clean_text takes out
    BERT_SPACE = 2,        // becomes a space by clean_text
    BERT_SEPARATOR = 4,    // ends a word
    BERT_PUNCTUATION = 8,  // a word of its own
    LETTER = 16,
    DIGIT = 32,
    SPACE = 64,  // of byte-level BPE's pattern
    CHINESE = 128,
    STRIPPED = 256,   // strip_accents takes it out
    COMBINING = 16    // the bits from this one on: the combining class of a mark that strip_accents leaves
};

unsigned unicode_class(uint32_t code);
// Appends what a code point becomes.
void unicode_strip_accents(uint32_t code, Numbers *to);
void unicode_lowercase(uint32_t code, Numbers *to);

bool utf8_valid(Bytes text);
// The code point at a place of valid UTF-8, which moves on.
uint32_t utf8_read(const char **at);
// Writes 1 to 4 bytes, and gives their number.
size_t utf8_write(uint32_t code, char *to);

#endif
