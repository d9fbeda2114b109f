// JSON in memory: fmrt.json and tokenizer.json.
#ifndef JSON_H
#define JSON_H

#include "common.h"

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

typedef struct Json {
    JsonType type;
    Bytes name;   // in an object
    Bytes text;   // of a string, in UTF-8
    double number;  // of a number; 1 for true
    struct Json *first, *next;  // its members, and the one after it
    size_t count;               // of members
} Json;

// `what` names the file in messages. The result lives as long as the program.
const Json *json_parse(Bytes data, const char *what);

// A member of an object; NULL where there is none, or where `object` is none.
const Json *json_get(const Json *object, const char *name);

// Whether a value is this string; true for NULL and null when `text` is NULL.
bool json_is(const Json *value, const char *text);
// Numbers and strings that have to be there.
uint32_t json_number(const Json *object, const char *name, const char *what);
Bytes json_text(const Json *object, const char *name, const char *what);
// false where the member is missing, null or false.
bool json_true(const Json *object, const char *name);
static inline bool json_missing(const Json *value) { return !value || value->type == JSON_NULL; }

#endif
