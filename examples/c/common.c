#include "common.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t line;

void set_line(size_t number) { line = number; }

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("embed: ", stderr);
    if (line) fprintf(stderr, "line %zu: ", line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void *allocate(size_t count, size_t size) {
    void *block = calloc(count ? count : 1, size ? size : 1);
    if (!block) fail("%zu bytes of memory cannot be had", count * size);
    return block;
}

void append(Numbers *numbers, uint32_t number) {
    if (numbers->count == numbers->room) {
        size_t room = numbers->room ? 2 * numbers->room : 64;
        uint32_t *grown = realloc(numbers->at, room * sizeof *grown);
        if (!grown) fail("%zu bytes of memory cannot be had", room * sizeof *grown);
        numbers->at = grown;
        numbers->room = room;
    }
    numbers->at[numbers->count++] = number;
}

Bytes bytes_of(const char *text) { return (Bytes){text, strlen(text)}; }

bool same(Bytes a, Bytes b) { return a.size == b.size && memcmp(a.data, b.data, a.size) == 0; }
