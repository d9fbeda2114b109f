#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

// A word is merged in steps that each look at all of it.
enum { LONGEST_WORD = 1 << 16 };

// The character that stands for a byte: printable ones for themselves, the others from U+0100 on.
static uint32_t character(unsigned byte) {
    uint32_t next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte) return printable ? b : next;
        next += !printable;
    }
    return 0;
}

static uint32_t id_of(const Vocabulary *vocabulary, Bytes token) {
    uint32_t id = vocabulary_id(vocabulary, token);
    if (id == NO_ID) fail("tokenizer.json: %.*s of its merges is not in its vocabulary", (int)token.size, token.data);
    return id;
}

// A merge is a pair of strings, or both in one with a space between.
static void add_merge(Merges *merges, const Vocabulary *vocabulary, const Json *pair, uint32_t rank) {
    Bytes left, right;
    if (pair->type == JSON_STRING) {
        const char *space = memchr(pair->text.data, ' ', pair->text.size);
        if (!space) fail("tokenizer.json: a merge is no pair");
        left = (Bytes){pair->text.data, (size_t)(space - pair->text.data)};
        right = (Bytes){space + 1, pair->text.size - left.size - 1};
    } else {
        if (pair->count != 2 || pair->first->type != JSON_STRING || pair->first->next->type != JSON_STRING)
            fail("tokenizer.json: a merge is no pair");
        left = pair->first->text;
        right = pair->first->next->text;
    }
    char *both = allocate(left.size + right.size, 1);
    memcpy(both, left.data, left.size);
    memcpy(both + left.size, right.data, right.size);
    uint32_t merged = id_of(vocabulary, (Bytes){both, left.size + right.size});
    merges_add(merges, (Merge){id_of(vocabulary, left), id_of(vocabulary, right), rank, merged});
    free(both);
}

Bpe bpe_open(const Json *data, const Vocabulary *vocabulary) {
    const Json *model = json_get(data, "model"), *splitter = json_get(data, "pre_tokenizer");
    const Json *merges = json_get(model, "merges"), *split = json_get(splitter, "use_regex");
    const char *others[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const Json *other = json_get(model, others[i]);
        if (!json_is(other, NULL) && !json_is(other, "")) fail("tokenizer.json: this example does not know %s", others[i]);
    }
    if (json_true(model, "byte_fallback") || json_true(model, "fuse_unk") || !json_missing(json_get(model, "dropout")))
        fail("tokenizer.json: this example does not know byte_fallback, fuse_unk and dropout");
    if (!merges || merges->type != JSON_ARRAY) fail("tokenizer.json: it has no merges");
    Bpe bpe = {
        .merges = merges_make(merges->count),
        .unknown = json_missing(json_get(model, "unk_token"))
                       ? NO_ID : vocabulary_id(vocabulary, json_text(model, "unk_token", "tokenizer.json")),
        .prefix_space = json_true(splitter, "add_prefix_space"),
        .split = !split || json_true(splitter, "use_regex"),
        .whole_words = json_true(model, "ignore_merges"),
    };
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4];
        bpe.bytes[byte] = vocabulary_id(vocabulary, (Bytes){text, utf8_write(character(byte), text)});
    }
    uint32_t rank = 0;
    for (const Json *pair = merges->first; pair; pair = pair->next) add_merge(&bpe.merges, vocabulary, pair, rank++);
    return bpe;
}

// The id of a whole word in the characters of its bytes.
static uint32_t whole(const Vocabulary *vocabulary, Bytes word) {
    char *text = allocate(word.size, 2);
    size_t size = 0;
    for (size_t i = 0; i < word.size; i++) size += utf8_write(character((unsigned char)word.data[i]), text + size);
    uint32_t id = vocabulary_id(vocabulary, (Bytes){text, size});
    free(text);
    return id;
}

// Merges the pair of the lowest rank, the leftmost first, until none is left.
static void word(const Bpe *bpe, const Vocabulary *vocabulary, Bytes text, Numbers *ids) {
    uint32_t id = bpe->whole_words ? whole(vocabulary, text) : NO_ID;
    if (id != NO_ID) {
        append(ids, id);
        return;
    }
    if (text.size > LONGEST_WORD) fail("a word has %zu bytes; this example takes up to %d", text.size, LONGEST_WORD);
    size_t start = ids->count;
    for (size_t i = 0; i < text.size; i++) {
        id = bpe->bytes[(unsigned char)text.data[i]];
        if (id == NO_ID) id = bpe->unknown;
        if (id != NO_ID) append(ids, id);
    }
    uint32_t *part = ids->at + start;
    size_t count = ids->count - start;
    const Merge **found = allocate(count, sizeof *found);
    for (size_t i = 0; i + 1 < count; i++) found[i] = merges_find(&bpe->merges, part[i], part[i + 1]);
    while (count > 1) {
        size_t best = count;
        for (size_t i = 0; i + 1 < count; i++)
            if (found[i] && (best == count || found[i]->rank < found[best]->rank)) best = i;
        if (best == count) break;
        part[best] = found[best]->merged;
        count--;
        memmove(part + best + 1, part + best + 2, (count - best - 1) * sizeof *part);
        memmove(found + best, found + best + 1, (count - best) * sizeof *found);
        if (best + 1 < count) found[best] = merges_find(&bpe->merges, part[best], part[best + 1]);
        if (best) found[best - 1] = merges_find(&bpe->merges, part[best - 1], part[best]);
    }
    free(found);
    ids->count = start + count;
}

// A text as code points, the place of each, and its class.
typedef struct {
    Numbers codes, places;
    size_t count;
} Letters;

static unsigned class_at(const Letters *letters, size_t i) {
    return i < letters->count ? unicode_class(letters->codes.at[i]) & (LETTER | DIGIT | SPACE) : SPACE;
}

static size_t run(const Letters *letters, size_t at, unsigned classes) {
    while (at < letters->count && class_at(letters, at) == classes) at++;
    return at;
}

// The end of 's, 't, 're, 've, 'm, 'll or 'd; `at` where there is none.
static size_t contraction(const Letters *letters, size_t at) {
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (letters->codes.at[at] != '\'') return at;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t size = strlen(endings[i]), same = 0;
        while (same < size && at + 1 + same < letters->count &&
               letters->codes.at[at + 1 + same] == (unsigned char)endings[i][same]) same++;
        if (same == size) return at + 1 + size;
    }
    return at;
}

// Where the word that begins at a place ends, by GPT-2's pattern.
static size_t word_end(const Letters *letters, size_t at) {
    size_t end = contraction(letters, at);
    if (end > at) return end;
    size_t first = at + (letters->codes.at[at] == ' ');
    unsigned classes = class_at(letters, first);
    if (first < letters->count && classes != SPACE) return run(letters, first, classes);
    end = run(letters, at, SPACE);
    // The last space belongs to what follows, unless it is the only one.
    return end < letters->count && end - at > 1 ? end - 1 : end;
}

void bpe_tokens(const Bpe *bpe, const Vocabulary *vocabulary, Bytes text, Numbers *ids) {
    char *copy = allocate(text.size + 1, 1);
    size_t added = bpe->prefix_space && text.data[0] != ' ';
    copy[0] = ' ';
    memcpy(copy + added, text.data, text.size);
    const char *end = copy + text.size + added;
    Letters letters = {0};
    for (const char *at = copy; at < end;) {
        append(&letters.places, (uint32_t)(at - copy));
        append(&letters.codes, utf8_read(&at));
    }
    letters.count = letters.codes.count;
    append(&letters.places, (uint32_t)(end - copy));
    for (size_t at = 0; at < letters.count;) {
        size_t next = bpe->split ? word_end(&letters, at) : letters.count;
        size_t first = letters.places.at[at];
        word(bpe, vocabulary, (Bytes){copy + first, letters.places.at[next] - first}, ids);
        at = next;
    }
    free(letters.codes.at);
    free(letters.places.at);
    free(copy);
}
