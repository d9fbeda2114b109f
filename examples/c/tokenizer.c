#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "bert.h"
#include "bpe.h"
#include "unicode.h"

// A token that is found in the text before the model sees it, such as [MASK].
typedef struct {
    Bytes text;
    uint32_t id;
    bool takes_left, takes_right;  // the white space there
} Added;

typedef struct {
    Added *at;
    size_t count;
} AddedTokens;

struct Tokenizer {
    Vocabulary vocabulary;
    bool is_bert;
    Bert bert;
    Bpe bpe;
    AddedTokens raw, normalized;
    Numbers before, after;
};

static Bytes normalize(const Tokenizer *tokenizer, Bytes text) {
    if (tokenizer->is_bert) return bert_normalize(&tokenizer->bert, text);
    char *copy = allocate(text.size, 1);
    memcpy(copy, text.data, text.size);
    return (Bytes){copy, text.size};
}

static void read_vocabulary(Tokenizer *tokenizer, const Json *model) {
    const Json *tokens = json_get(model, "vocab");
    if (!tokens || tokens->type != JSON_OBJECT) fail("tokenizer.json: its vocabulary is no object");
    tokenizer->vocabulary = vocabulary_make(tokens->count);
    for (const Json *token = tokens->first; token; token = token->next) {
        if (token->type != JSON_NUMBER || token->number < 0 || token->number >= NO_ID)
            fail("tokenizer.json: %.*s has no id", (int)token->name.size, token->name.data);
        vocabulary_add(&tokenizer->vocabulary, token->name, (uint32_t)token->number);
    }
}

static void read_added(Tokenizer *tokenizer, const Json *tokens) {
    size_t count = tokens ? tokens->count : 0;
    tokenizer->raw.at = allocate(count, sizeof(Added));
    tokenizer->normalized.at = allocate(count, sizeof(Added));
    for (const Json *token = count ? tokens->first : NULL; token; token = token->next) {
        Added added = {json_text(token, "content", "tokenizer.json"), json_number(token, "id", "tokenizer.json"),
                       json_true(token, "lstrip"), json_true(token, "rstrip")};
        if (json_true(token, "single_word"))
            fail("tokenizer.json: %.*s is a single_word, which this example does not know", (int)added.text.size, added.text.data);
        bool normalized = json_true(token, "normalized");
        if (normalized) added.text = normalize(tokenizer, added.text);
        AddedTokens *to = normalized ? &tokenizer->normalized : &tokenizer->raw;
        if (added.text.size) to->at[to->count++] = added;
    }
}

static void read_template(Tokenizer *tokenizer, const Json *data) {
    const Json *parts = json_get(data, "single"), *special = json_get(data, "special_tokens");
    Numbers *to = &tokenizer->before;
    for (const Json *part = parts ? parts->first : NULL; part; part = part->next) {
        const Json *token = json_get(part, "SpecialToken");
        const Json *content = token ? token : json_get(part, "Sequence");
        if (!content || json_number(content, "type_id", "tokenizer.json"))
            fail("tokenizer.json: its post_processor has token types, which this example does not know");
        if (!token) {
            to = &tokenizer->after;
            continue;
        }
        const Json *found = NULL;
        for (const Json *one = special ? special->first : NULL; one; one = one->next)
            if (same(one->name, json_text(token, "id", "tokenizer.json"))) found = json_get(one, "ids");
        if (!found || !found->count) fail("tokenizer.json: its post_processor has a token without an id");
        for (const Json *id = found->first; id; id = id->next) append(to, (uint32_t)id->number);
    }
}

static uint32_t second_of(const Json *pair) {
    if (!pair || pair->count != 2 || pair->first->next->type != JSON_NUMBER)
        fail("tokenizer.json: its post_processor has a token without an id");
    return (uint32_t)pair->first->next->number;
}

static void read_post_processor(Tokenizer *tokenizer, const Json *data) {
    const Json *type = json_get(data, "type");
    if (json_missing(data) || json_is(type, "ByteLevel")) return;  // that one moves offsets alone
    if (json_is(type, "Sequence")) {
        const Json *all = json_get(data, "processors");
        for (const Json *one = all ? all->first : NULL; one; one = one->next) read_post_processor(tokenizer, one);
    } else if (tokenizer->before.count || tokenizer->after.count) {
        fail("tokenizer.json: this example knows one post_processor that adds tokens");
    } else if (json_is(type, "TemplateProcessing")) {
        read_template(tokenizer, data);
    } else if (json_is(type, "RobertaProcessing") || json_is(type, "BertProcessing")) {
        append(&tokenizer->before, second_of(json_get(data, "cls")));
        append(&tokenizer->after, second_of(json_get(data, "sep")));
    } else {
        fail("tokenizer.json: this example does not know its post_processor");
    }
}

Tokenizer *tokenizer_open(const Json *data) {
    const Json *model = json_get(data, "model"), *kind = json_get(model, "type");
    const Json *normalizer = json_get(data, "normalizer");
    const Json *splitter = json_get(json_get(data, "pre_tokenizer"), "type");
    Tokenizer *tokenizer = allocate(1, sizeof *tokenizer);
    bool bert = json_is(kind, "WordPiece") && json_is(json_get(normalizer, "type"), "BertNormalizer") && json_is(splitter, "BertPreTokenizer");
    bool bpe = json_is(kind, "BPE") && json_missing(normalizer) && json_is(splitter, "ByteLevel");
    if (!bert && !bpe)
        fail("tokenizer.json: this example tokenizes as BERT does (WordPiece) and as GPT-2 and RoBERTa do (byte-level BPE), and this is another tokenizer");
    read_vocabulary(tokenizer, model);
    tokenizer->is_bert = bert;
    if (bert) tokenizer->bert = bert_open(data, &tokenizer->vocabulary);
    else tokenizer->bpe = bpe_open(data, &tokenizer->vocabulary);
    read_added(tokenizer, json_get(data, "added_tokens"));
    read_post_processor(tokenizer, json_get(data, "post_processor"));
    return tokenizer;
}

typedef void Rest(const Tokenizer *, Bytes, Numbers *);

// The longest added token at a place; NULL where there is none.
static const Added *added_at(const AddedTokens *tokens, const char *at, const char *end) {
    const Added *found = NULL;
    for (size_t i = 0; i < tokens->count; i++) {
        Bytes text = tokens->at[i].text;
        bool here = text.size <= (size_t)(end - at) && memcmp(at, text.data, text.size) == 0;
        if (here && (!found || text.size > found->text.size)) found = tokens->at + i;
    }
    return found;
}

static bool is_space(const char *at) { return unicode_class(utf8_read(&at)) & BERT_SEPARATOR; }

static const char *before_spaces(const char *start, const char *at) {
    while (at > start) {
        const char *last = at - 1;
        while (((unsigned char)*last & 0xC0) == 0x80) last--;
        if (!is_space(last)) break;
        at = last;
    }
    return at;
}

static const char *after_spaces(const char *at, const char *end) {
    while (at < end && is_space(at)) utf8_read(&at);
    return at;
}

// Finds the added tokens of a text, and hands on what is between them.
static void split(const Tokenizer *tokenizer, const AddedTokens *tokens, Bytes text, Rest *rest, Numbers *ids) {
    const char *start = text.data, *end = start + text.size;
    for (const char *at = start; at < end;) {
        const Added *added = added_at(tokens, at, end);
        if (!added) {
            at++;
            continue;
        }
        const char *before = added->takes_left ? before_spaces(start, at) : at;
        if (before > start) rest(tokenizer, (Bytes){start, (size_t)(before - start)}, ids);
        append(ids, added->id);
        at += added->text.size;
        if (added->takes_right) at = after_spaces(at, end);
        start = at;
    }
    if (end > start) rest(tokenizer, (Bytes){start, (size_t)(end - start)}, ids);
}

static void plain(const Tokenizer *tokenizer, Bytes text, Numbers *ids) {
    if (tokenizer->is_bert) bert_tokens(&tokenizer->bert, &tokenizer->vocabulary, text, ids);
    else bpe_tokens(&tokenizer->bpe, &tokenizer->vocabulary, text, ids);
}

static void part(const Tokenizer *tokenizer, Bytes text, Numbers *ids) {
    Bytes normalized = normalize(tokenizer, text);
    split(tokenizer, &tokenizer->normalized, normalized, plain, ids);
    free((char *)normalized.data);
}

void tokenizer_encode(const Tokenizer *tokenizer, Bytes text, Numbers *ids) {
    split(tokenizer, &tokenizer->raw, text, part, ids);
}

const Numbers *tokenizer_before(const Tokenizer *tokenizer) { return &tokenizer->before; }
const Numbers *tokenizer_after(const Tokenizer *tokenizer) { return &tokenizer->after; }
