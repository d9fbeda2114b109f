#include "vocabulary.h"

static size_t size_for(size_t count) {
    size_t size = 16;
    while (size < 2 * count) size *= 2;
    return size;
}

// FNV-1a.
static size_t hash(const void *data, size_t size) {
    uint64_t value = 0xCBF29CE484222325;
    for (const unsigned char *at = data, *end = at + size; at < end; at++) value = (value ^ *at) * 0x100000001B3;
    return (size_t)(value ^ value >> 32);
}

Vocabulary vocabulary_make(size_t count) {
    size_t size = size_for(count);
    return (Vocabulary){allocate(size, sizeof(Bytes)), allocate(size, sizeof(uint32_t)), size - 1};
}

// The place of a token, or the free one where it would be.
static size_t place_of(const Vocabulary *vocabulary, Bytes token) {
    size_t place = hash(token.data, token.size) & vocabulary->mask;
    while (vocabulary->tokens[place].data && !same(vocabulary->tokens[place], token))
        place = (place + 1) & vocabulary->mask;
    return place;
}

void vocabulary_add(Vocabulary *vocabulary, Bytes token, uint32_t id) {
    size_t place = place_of(vocabulary, token);
    vocabulary->tokens[place] = token;
    vocabulary->ids[place] = id;
}

uint32_t vocabulary_id(const Vocabulary *vocabulary, Bytes token) {
    size_t place = place_of(vocabulary, token);
    return vocabulary->tokens[place].data ? vocabulary->ids[place] : NO_ID;
}

Merges merges_make(size_t count) {
    size_t size = size_for(count);
    Merges merges = {allocate(size, sizeof(Merge)), size - 1};
    for (size_t i = 0; i < size; i++) merges.merges[i].left = NO_ID;
    return merges;
}

static Merge *merge_at(const Merges *merges, uint32_t left, uint32_t right) {
    uint32_t pair[] = {left, right};
    size_t place = hash(pair, sizeof pair) & merges->mask;
    for (;; place = (place + 1) & merges->mask) {
        Merge *found = merges->merges + place;
        if (found->left == NO_ID || (found->left == left && found->right == right)) return found;
    }
}

void merges_add(Merges *merges, Merge merge) { *merge_at(merges, merge.left, merge.right) = merge; }

const Merge *merges_find(const Merges *merges, uint32_t left, uint32_t right) {
    const Merge *found = merge_at(merges, left, right);
    return found->left == NO_ID ? NULL : found;
}
