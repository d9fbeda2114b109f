// embed BUNDLE [VARIANT] < texts: a line of JSON for each line of text, with its token ids and vector.
// With --ids, the token ids alone.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "bundle.h"
#include "json.h"
#include "session.h"
#include "tokenizer.h"
#include "unicode.h"

typedef struct {
    Tokenizer *tokenizer;
    Session *session;
    Bytes prompt;
    uint32_t most;
    bool cut, cut_left;
} Embedder;

static const Json *parse(const Bundle *bundle, const char *name) {
    return json_parse(bundle_read(bundle, bytes_of(name)), name);
}

static const Json *text_tower(const Json *manifest) {
    const Json *towers = json_get(manifest, "towers");
    for (const Json *tower = towers ? towers->first : NULL; tower; tower = tower->next)
        if (json_is(json_get(tower, "modality"), "text")) return tower;
    fail("the bundle embeds no texts");
}

// The variant of a name; without one that of the highest precision, one made for CPUs before a portable one.
static const Json *choose(const Json *manifest, const char *name) {
    const Json *variants = json_get(manifest, "variants"), *best = NULL;
    int best_rank = 0;
    for (const Json *one = variants ? variants->first : NULL; one; one = one->next) {
        bool cpu = json_is(json_get(one, "provider"), "cpu");
        if (!json_is(json_get(one, "modality"), "text") || !(cpu || json_is(json_get(one, "provider"), "any"))) continue;
        if (name && !json_is(json_get(one, "name"), name)) continue;
        int rank = 1 + cpu + 2 * json_is(json_get(one, "precision"), "fp32");
        if (rank > best_rank) best = one, best_rank = rank;
    }
    if (!best) fail("the bundle has no variant %s for texts on CPUs; see fmrt info", name ? name : "");
    const Json *precision = json_get(best, "precision");
    for (const Json *one = variants->first; one && !name && best_rank < 3; one = one->next)
        if (!same(json_text(one, "precision", "fmrt.json"), precision->text))
            fail("the bundle has several precisions and no fp32; name a variant, see fmrt info");
    return best;
}

// The prompt that goes before each text unasked.
static Bytes default_prompt(const Json *input) {
    const Json *name = json_get(input, "default_prompt_name"), *prompts = json_get(input, "prompts");
    if (json_missing(name)) return (Bytes){"", 0};
    for (const Json *prompt = prompts ? prompts->first : NULL; prompt; prompt = prompt->next)
        if (prompt->type == JSON_STRING && same(prompt->name, name->text)) return prompt->text;
    fail("fmrt.json: its default prompt is not among its prompts");
}

static Embedder open_embedder(const char *path, const char *name, bool ids_alone, bool cut) {
    Bundle bundle = bundle_open(path);
    const Json *manifest = parse(&bundle, "fmrt.json"), *tower = text_tower(manifest);
    const Json *input = json_get(tower, "input");
    const Json *include_prompt = json_get(input, "include_prompt");
    if (json_true(input, "pad_to_max_length") || (include_prompt && !json_true(input, "include_prompt")))
        fail("the model pads its texts or leaves its prompt out, which this example does not do");
    Embedder embedder = {
        .tokenizer = tokenizer_open(parse(&bundle, "tokenizer.json")),
        .session = ids_alone ? NULL : session_open(&bundle, choose(manifest, name), tower),
        .prompt = default_prompt(input),
        .most = json_number(input, "max_length", "fmrt.json"),
        .cut = cut,
        .cut_left = json_is(json_get(input, "truncation_side"), "left"),
    };
    size_t around = tokenizer_before(embedder.tokenizer)->count + tokenizer_after(embedder.tokenizer)->count;
    if (embedder.most < around) fail("max_length %u leaves no room for the special tokens", embedder.most);
    return embedder;
}

static Numbers tokens_of(const Embedder *embedder, Bytes text) {
    const Numbers *before = tokenizer_before(embedder->tokenizer), *after = tokenizer_after(embedder->tokenizer);
    Numbers own = {0}, ids = {0};
    tokenizer_encode(embedder->tokenizer, text, &own);
    size_t room = embedder->most - before->count - after->count, first = 0;
    if (own.count > room) {
        if (!embedder->cut) fail("the text has %zu tokens, and the model takes %u; --truncate cuts it", own.count + before->count + after->count, embedder->most);
        if (embedder->cut_left) first = own.count - room;
        own.count = first + room;
    }
    for (size_t i = 0; i < before->count; i++) append(&ids, before->at[i]);
    for (size_t i = first; i < own.count; i++) append(&ids, own.at[i]);
    for (size_t i = 0; i < after->count; i++) append(&ids, after->at[i]);
    free(own.at);
    if (!ids.count) fail("the text has no tokens");
    return ids;
}

static void print_vector(Session *session, const Numbers *ids) {
    size_t dim;
    float *vector = session_run(session, ids, &dim);
    printf("], \"vector\": [");
    for (size_t i = 0; i < dim; i++) printf("%s%.9g", i ? ", " : "", (double)vector[i]);
    free(vector);
}

static void embed(const Embedder *embedder, Bytes line) {
    if (!utf8_valid(line)) fail("the text is not valid UTF-8");
    if (memchr(line.data, 0, line.size)) fail("the text has a NUL character; remove it");
    char *text = allocate(embedder->prompt.size + line.size, 1);
    memcpy(text, embedder->prompt.data, embedder->prompt.size);
    memcpy(text + embedder->prompt.size, line.data, line.size);
    Numbers ids = tokens_of(embedder, (Bytes){text, embedder->prompt.size + line.size});
    printf("{\"ids\": [");
    for (size_t i = 0; i < ids.count; i++) printf("%s%u", i ? ", " : "", ids.at[i]);
    if (embedder->session) print_vector(embedder->session, &ids);
    printf("]}\n");
    free(ids.at);
    free(text);
}

static void embed_lines(const Embedder *embedder) {
    char *line = NULL;
    size_t room = 0, number = 0;
    for (ssize_t size; (size = getline(&line, &room, stdin)) >= 0;) {
        Bytes text = {line, (size_t)size};
        if (!number && text.size >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) text = (Bytes){line + 3, text.size - 3};
        if (text.size && text.data[text.size - 1] == '\n') {
            text.size--;
            if (text.size && text.data[text.size - 1] == '\r') text.size--;
        }
        set_line(++number);
        embed(embedder, text);
    }
    set_line(0);
    free(line);
    if (ferror(stdin)) fail("the standard input cannot be read");
    if (fflush(stdout) || ferror(stdout)) fail("the standard output cannot be written");
}

int main(int count, char **arguments) {
    const char *given[2] = {NULL, NULL};
    int found = 0;
    bool cut = false, ids_alone = false, wrong = false;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--version")) return printf("ONNX Runtime %s\n", session_runtime_version()) < 0;
        if (!strcmp(arguments[i], "--truncate")) cut = true;
        else if (!strcmp(arguments[i], "--ids")) ids_alone = true;
        else if (arguments[i][0] == '-' || found == 2) wrong = true;
        else given[found++] = arguments[i];
    }
    if (wrong || !found) {
        fputs("usage: embed BUNDLE [VARIANT] [--truncate] [--ids] < texts.txt; --version prints ONNX Runtime's\n", stderr);
        return 2;
    }
    Embedder embedder = open_embedder(given[0], given[1], ids_alone, cut);
    embed_lines(&embedder);
    return 0;
}
