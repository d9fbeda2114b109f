#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

enum { DEEPEST = 64, LONGEST_NUMBER = 40 };

typedef struct {
    const char *at, *end;
    const char *what;
} Reader;

static _Noreturn void malformed(const Reader *reader) { fail("%s is not valid JSON", reader->what); }

static char peek(Reader *reader) {
    while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) && *reader->at) reader->at++;
    if (reader->at == reader->end) malformed(reader);
    return *reader->at;
}

static void expect(Reader *reader, char wanted) {
    if (peek(reader) != wanted) malformed(reader);
    reader->at++;
}

static uint32_t hexadecimal(Reader *reader) {
    uint32_t value = 0;
    if (reader->end - reader->at < 4) malformed(reader);
    for (int i = 0; i < 4; i++) {
        char c = *reader->at++;
        const char *digits = "0123456789abcdef", *found = strchr(digits, c | 0x20);
        if (!c || !found) malformed(reader);
        value = value << 4 | (uint32_t)(found - digits);
    }
    return value;
}

static uint32_t escaped(Reader *reader) {
    if (reader->at == reader->end) malformed(reader);
    char c = *reader->at++;
    const char *names = "\"\\/bfnrt", *values = "\"\\/\b\f\n\r\t", *found = strchr(names, c);
    if (c && found) return (unsigned char)values[found - names];
    if (c != 'u') malformed(reader);
    uint32_t value = hexadecimal(reader);
    if (value >> 10 == 0xD800 >> 10) {
        if (reader->end - reader->at < 6 || *reader->at++ != '\\' || *reader->at++ != 'u') malformed(reader);
        uint32_t low = hexadecimal(reader);
        if (low >> 10 != 0xDC00 >> 10) malformed(reader);
        value = 0x10000 + ((value & 0x3FF) << 10 | (low & 0x3FF));
    }
    if (value >> 11 == 0xD800 >> 11) malformed(reader);
    return value;
}

static Bytes string(Reader *reader) {
    expect(reader, '"');
    const char *close = reader->at;
    while (close < reader->end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= reader->end) malformed(reader);
    // An escape is longer than what it stands for.
    char *text = allocate((size_t)(close - reader->at) + 1, 1), *to = text;
    while (reader->at < close) {
        if (*reader->at == '\\') {
            reader->at++;
            to += utf8_write(escaped(reader), to);
        } else {
            *to++ = *reader->at++;
        }
    }
    if (reader->at != close) malformed(reader);
    reader->at++;
    return (Bytes){text, (size_t)(to - text)};
}

static void literal(Reader *reader, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, word, size) != 0) malformed(reader);
    reader->at += size;
}

static double number(Reader *reader) {
    char copy[LONGEST_NUMBER + 1] = "", *end;
    size_t size = 0;
    while (reader->at < reader->end && size < LONGEST_NUMBER && *reader->at && strchr("+-.eE0123456789", *reader->at))
        copy[size++] = *reader->at++;
    double value = strtod(copy, &end);
    if (!size || *end) malformed(reader);
    return value;
}

static Json *value(Reader *reader, int depth);

static void members(Reader *reader, Json *into, char close, int depth) {
    Json **last = &into->first;
    reader->at++;
    if (peek(reader) == close) {
        reader->at++;
        return;
    }
    for (;;) {
        Bytes name = {0};
        if (into->type == JSON_OBJECT) {
            name = (peek(reader), string(reader));
            expect(reader, ':');
        }
        *last = value(reader, depth + 1);
        (*last)->name = name;
        last = &(*last)->next;
        into->count++;
        if (peek(reader) == close) break;
        expect(reader, ',');
    }
    reader->at++;
}

static Json *value(Reader *reader, int depth) {
    Json *found = allocate(1, sizeof *found);
    if (depth > DEEPEST) malformed(reader);
    switch (peek(reader)) {
        case '{': found->type = JSON_OBJECT; members(reader, found, '}', depth); break;
        case '[': found->type = JSON_ARRAY; members(reader, found, ']', depth); break;
        case '"': found->type = JSON_STRING; found->text = string(reader); break;
        case 'n': literal(reader, "null"); break;
        case 't': literal(reader, "true"); found->type = JSON_BOOL; found->number = 1; break;
        case 'f': literal(reader, "false"); found->type = JSON_BOOL; break;
        default: found->type = JSON_NUMBER; found->number = number(reader);
    }
    return found;
}

const Json *json_parse(Bytes data, const char *what) {
    Reader reader = {data.data, data.data + data.size, what};
    if (!utf8_valid(data)) malformed(&reader);
    const Json *found = value(&reader, 0);
    while (reader.at < reader.end && *reader.at && strchr(" \t\r\n", *reader.at)) reader.at++;
    if (reader.at != reader.end) malformed(&reader);
    return found;
}

const Json *json_get(const Json *object, const char *name) {
    if (!object || object->type != JSON_OBJECT) return NULL;
    for (const Json *member = object->first; member; member = member->next)
        if (same(member->name, bytes_of(name))) return member;
    return NULL;
}

bool json_is(const Json *value, const char *text) {
    if (json_missing(value)) return !text;
    return text && value->type == JSON_STRING && same(value->text, bytes_of(text));
}

uint32_t json_number(const Json *object, const char *name, const char *what) {
    const Json *found = json_get(object, name);
    if (!found || found->type != JSON_NUMBER || !(found->number >= 0 && found->number < 4294967295.0))
        fail("%s: %s is no number from 0 to 4294967294", what, name);
    if (found->number != (double)(uint32_t)found->number) fail("%s: %s is no whole number", what, name);
    return (uint32_t)found->number;
}

Bytes json_text(const Json *object, const char *name, const char *what) {
    const Json *found = json_get(object, name);
    if (!found || found->type != JSON_STRING) fail("%s: %s is not a string", what, name);
    return found->text;
}

bool json_true(const Json *object, const char *name) {
    const Json *found = json_get(object, name);
    return found && found->type == JSON_BOOL && found->number != 0;
}
