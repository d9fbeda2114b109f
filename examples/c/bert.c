#include "bert.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

Bert bert_open(const Json *data, const Vocabulary *vocabulary) {
    const Json *normalizer = json_get(data, "normalizer"), *model = json_get(data, "model");
    const Json *strip = json_get(normalizer, "strip_accents");
    bool lower = json_true(normalizer, "lowercase");
    Bytes unknown = json_text(model, "unk_token", "tokenizer.json");
    Bert bert = {
        .clean = json_true(normalizer, "clean_text"),
        .chinese = json_true(normalizer, "handle_chinese_chars"),
        .strip = json_missing(strip) ? lower : json_true(normalizer, "strip_accents"),
        .lower = lower,
        .prefix = json_text(model, "continuing_subword_prefix", "tokenizer.json"),
        .unknown = vocabulary_id(vocabulary, unknown),
        .longest = json_number(model, "max_input_chars_per_word", "tokenizer.json"),
    };
    if (bert.unknown == NO_ID) fail("tokenizer.json: its unk_token is not in its vocabulary");
    return bert;
}

static void clean(uint32_t code, Numbers *to) {
    unsigned classes = unicode_class(code);
    if (classes & BERT_SPACE) append(to, ' ');
    else if (!(classes & BERT_DROPPED)) append(to, code);
}

static void spread(uint32_t code, Numbers *to) {
    bool chinese = unicode_class(code) & CHINESE;
    if (chinese) append(to, ' ');
    append(to, code);
    if (chinese) append(to, ' ');
}

// Combining marks that stay are in the order of their classes, unless a text has them in another one.
static void check_marks(const Numbers *codes) {
    unsigned before = 0;
    for (size_t i = 0; i < codes->count; i++) {
        unsigned combining = unicode_class(codes->at[i]) >> COMBINING;
        if (combining && combining < before)
            fail("the combining mark U+%04X is not in Unicode's order; this example cannot tokenize that", codes->at[i]);
        before = combining;
    }
}

static void step(Numbers *codes, void (*change)(uint32_t, Numbers *)) {
    Numbers changed = {0};
    for (size_t i = 0; i < codes->count; i++) change(codes->at[i], &changed);
    free(codes->at);
    *codes = changed;
}

Bytes bert_normalize(const Bert *bert, Bytes text) {
    Numbers codes = {0};
    for (const char *at = text.data; at < text.data + text.size;) append(&codes, utf8_read(&at));
    if (bert->clean) step(&codes, clean);
    if (bert->chinese) step(&codes, spread);
    if (bert->strip) step(&codes, unicode_strip_accents);
    if (bert->strip) check_marks(&codes);
    if (bert->lower) step(&codes, unicode_lowercase);
    char *out = allocate(codes.count, 4);
    size_t size = 0;
    for (size_t i = 0; i < codes.count; i++) size += utf8_write(codes.at[i], out + size);
    free(codes.at);
    return (Bytes){out, size};
}

static size_t characters(Bytes text) {
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += ((unsigned char)text.data[i] & 0xC0) != 0x80;
    return count;
}

// The longest token that a part begins with, which becomes this long.
static uint32_t longest(const Vocabulary *vocabulary, Bytes prefix, Bytes *part, char *room) {
    memcpy(room, prefix.data, prefix.size);
    memcpy(room + prefix.size, part->data, part->size);
    for (;;) {
        uint32_t id = vocabulary_id(vocabulary, (Bytes){room, prefix.size + part->size});
        if (id != NO_ID) return id;
        // One character less.
        while (part->size && ((unsigned char)part->data[--part->size] & 0xC0) == 0x80) continue;
        if (!part->size) return NO_ID;
    }
}

static void word(const Bert *bert, const Vocabulary *vocabulary, Bytes whole, Numbers *ids) {
    size_t before = ids->count;
    bool fits = characters(whole) <= bert->longest;
    char *room = allocate(bert->prefix.size + whole.size, 1);
    for (size_t start = 0; fits && start < whole.size;) {
        Bytes part = {whole.data + start, whole.size - start};
        Bytes prefix = start ? bert->prefix : (Bytes){"", 0};
        uint32_t id = longest(vocabulary, prefix, &part, room);
        fits = id != NO_ID;
        if (fits) append(ids, id);
        start += part.size;
    }
    free(room);
    if (fits) return;
    ids->count = before;
    append(ids, bert->unknown);
}

void bert_tokens(const Bert *bert, const Vocabulary *vocabulary, Bytes normalized, Numbers *ids) {
    const char *end = normalized.data + normalized.size, *start = normalized.data;
    for (const char *at = start; at < end;) {
        const char *here = at;
        unsigned classes = unicode_class(utf8_read(&at));
        if (!(classes & (BERT_SEPARATOR | BERT_PUNCTUATION))) continue;
        if (here > start) word(bert, vocabulary, (Bytes){start, (size_t)(here - start)}, ids);
        if (classes & BERT_PUNCTUATION) word(bert, vocabulary, (Bytes){here, (size_t)(at - here)}, ids);
        start = at;
    }
    if (end > start) word(bert, vocabulary, (Bytes){start, (size_t)(end - start)}, ids);
}
