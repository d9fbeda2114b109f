// What every part uses: one way to fail, memory that is there or ends the program, bytes with a length.
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that someone else owns; no zero ends them.
typedef struct {
    const char *data;
    size_t size;
} Bytes;

// Numbers that grow in number: code points, token ids.
typedef struct {
    uint32_t *at;
    size_t count, room;
} Numbers;

// Prints one line to the standard error, and ends the program with 1.
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The line of the input that messages of `fail` name from now on; 0 for none.
void set_line(size_t number);

void *allocate(size_t count, size_t size);
void append(Numbers *numbers, uint32_t number);
Bytes bytes_of(const char *text);
bool same(Bytes a, Bytes b);

#endif
