#include "unicode.h"

typedef struct {
    uint32_t first, last;
    unsigned classes;
} Range;

// Code points first, first + step, ... up to last become themselves plus a number.
typedef struct {
    uint32_t first, last, step;
    int32_t plus;
} Shift;

// What a code point becomes; zeros end it.
typedef struct {
    uint32_t code, to[3];
} Mapping;

#include "unicode_tables.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

// Hangul syllables are decomposed by number, see chapter 3.12 of the Unicode standard.
enum { HANGUL = 0xAC00, HANGUL_END = 0xD7A3, LEADING = 0x1100, VOWEL = 0x1161, TRAILING = 0x11A7 };
enum { TRAILINGS = 28, SYLLABLES = 21 * TRAILINGS };

unsigned unicode_class(uint32_t code) {
    size_t low = 0, high = COUNT(classes);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > classes[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < COUNT(classes) && code >= classes[low].first ? classes[low].classes : 0;
}

static void mapped(const Mapping *table, size_t count, uint32_t code, Numbers *to) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > table[middle].code) low = middle + 1;
        else high = middle;
    }
    if (low == count || table[low].code != code) {
        append(to, code);
        return;
    }
    for (size_t i = 0; i < COUNT(table->to) && table[low].to[i]; i++) append(to, table[low].to[i]);
}

void unicode_strip_accents(uint32_t code, Numbers *to) {
    if (code >= HANGUL && code <= HANGUL_END) {
        uint32_t place = code - HANGUL;
        append(to, LEADING + place / SYLLABLES);
        append(to, VOWEL + place % SYLLABLES / TRAILINGS);
        if (place % TRAILINGS) append(to, TRAILING + place % TRAILINGS);
    } else if (!(unicode_class(code) & STRIPPED)) {
        mapped(stripped, COUNT(stripped), code, to);
    }
}

void unicode_lowercase(uint32_t code, Numbers *to) {
    for (size_t i = 0; i < COUNT(lowercase) && lowercase[i].first <= code; i++) {
        const Shift *shift = lowercase + i;
        if (code <= shift->last && (code - shift->first) % shift->step == 0) {
            append(to, (uint32_t)((int64_t)code + shift->plus));
            return;
        }
    }
    mapped(lowercase_many, COUNT(lowercase_many), code, to);
}

// The length of the character whose first byte this is; 0 if none begins so.
static size_t length_of(unsigned char first) {
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return 2;
    if (first >= 0xE0 && first <= 0xEF) return 3;
    return first >= 0xF0 && first <= 0xF4 ? 4 : 0;
}

bool utf8_valid(Bytes text) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const char *at = text.data, *end = text.data + text.size;
    while (at < end) {
        size_t length = length_of((unsigned char)*at);
        if (!length || (size_t)(end - at) < length) return false;
        for (size_t i = 1; i < length; i++)
            if (((unsigned char)at[i] & 0xC0) != 0x80) return false;
        uint32_t code = utf8_read(&at);
        if (code < least[length] || code >> 11 == 0xD800 >> 11 || code > 0x10FFFF) return false;
    }
    return true;
}

uint32_t utf8_read(const char **at) {
    static const unsigned char bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const unsigned char *byte = (const unsigned char *)*at;
    size_t length = length_of(*byte);
    uint32_t code = *byte & bits[length];
    for (size_t i = 1; i < length; i++) code = code << 6 | (byte[i] & 0x3F);
    *at += length;
    return code;
}

size_t utf8_write(uint32_t code, char *to) {
    if (code < 0x80) {
        *to = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6) to[i] = (char)(0x80 | (code & 0x3F));
    *to = (char)((0xF00 >> length & 0xF0) | code);
    return length;
}
