// From tokens to ids, and from pairs of ids to what they merge into.
#ifndef VOCABULARY_H
#define VOCABULARY_H

#include "common.h"

#define NO_ID UINT32_MAX

typedef struct {
    Bytes *tokens;
    uint32_t *ids;
    size_t mask;
} Vocabulary;

typedef struct {
    uint32_t left, right, rank, merged;
} Merge;

typedef struct {
    Merge *merges;
    size_t mask;
} Merges;

// Room for `count` of them.
Vocabulary vocabulary_make(size_t count);
void vocabulary_add(Vocabulary *vocabulary, Bytes token, uint32_t id);
// NO_ID where there is none.
uint32_t vocabulary_id(const Vocabulary *vocabulary, Bytes token);

Merges merges_make(size_t count);
void merges_add(Merges *merges, Merge merge);
// NULL where there is none.
const Merge *merges_find(const Merges *merges, uint32_t left, uint32_t right);

#endif
