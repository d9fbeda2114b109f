#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "onnxruntime.h"

struct Session {
    OrtSession *session;
    OrtMemoryInfo *memory;
    char *inputs[3];
    size_t count;
    char *output;
};

enum { LONGEST_MESSAGE = 400 };

static OrtEntry entry(int place) {
    static const OrtEntry *api;
    if (!api) api = OrtGetApiBase()->GetApi(API_VERSION);
    if (!api) fail("ONNX Runtime %s is too old; its C API must be version %d at least", session_runtime_version(), API_VERSION);
    return api[place];
}

// ONNX Runtime's functions by name, as `onnxruntime.h` declares them.
#define ORT(name) ((Ort##name *)entry(ORT_##name))

const char *session_runtime_version(void) { return OrtGetApiBase()->GetVersionString(); }

static void check(OrtStatus *status) {
    if (!status) return;
    char line[LONGEST_MESSAGE + 1] = "";
    strncpy(line, ORT(GetErrorMessage)(status), LONGEST_MESSAGE);
    line[strcspn(line, "\r\n")] = 0;
    fail("ONNX Runtime: %s", line);
}

static char *text_of(Bytes bytes) {
    char *text = allocate(bytes.size + 1, 1);
    memcpy(text, bytes.data, bytes.size);
    return text;
}

// A file whose size the manifest states.
static Bytes checked(const Bundle *bundle, Bytes name, const Json *about) {
    Bytes found = bundle_read(bundle, name);
    if (found.size != json_number(about, "size", "fmrt.json"))
        fail("%.*s has another size than fmrt.json says; copy the bundle again", (int)name.size, name.data);
    return found;
}

// Hands the weights of an archive to ONNX Runtime under the names that the graph has for them.
static void add_weights(OrtSessionOptions *options, const Bundle *bundle, const Json *external, size_t folder) {
    const char **names = allocate(external->count, sizeof *names);
    char **contents = allocate(external->count, sizeof *contents);
    size_t *sizes = allocate(external->count, sizeof *sizes), count = 0;
    for (const Json *file = external->first; file; file = file->next, count++) {
        Bytes content = checked(bundle, file->name, file);
        if (file->name.size <= folder) fail("fmrt.json: weights are not beside their graph");
        names[count] = text_of((Bytes){file->name.data + folder, file->name.size - folder});
        contents[count] = (char *)content.data;
        sizes[count] = content.size;
    }
    check(ORT(AddExternalInitializersFromFilesInMemory)(options, names, contents, sizes, count));
}

static OrtSession *create(OrtEnv *env, OrtSessionOptions *options, const Bundle *bundle, const Json *variant) {
    Bytes file = json_text(variant, "file", "fmrt.json");
    const Json *external = json_get(variant, "external");
    OrtSession *session;
    Bytes graph = checked(bundle, file, variant);
    if (bundle->is_folder) {
        for (const Json *one = external ? external->first : NULL; one; one = one->next) checked(bundle, one->name, one);
        check(ORT(CreateSession)(env, bundle_path(bundle, file), options, &session));
        return session;
    }
    size_t folder = file.size;
    while (folder && file.data[folder - 1] != '/') folder--;
    if (external && external->count) add_weights(options, bundle, external, folder);
    check(ORT(CreateSessionFromArray)(env, graph.data, graph.size, options, &session));
    return session;
}

static void read_inputs(Session *session) {
    OrtAllocator *allocator;
    check(ORT(GetAllocatorWithDefaultOptions)(&allocator));
    check(ORT(SessionGetInputCount)(session->session, &session->count));
    if (session->count > 3) fail("the graph has %zu inputs; this example gives 3 at most", session->count);
    for (size_t i = 0; i < session->count; i++) {
        char **name = session->inputs + i;
        check(ORT(SessionGetInputName)(session->session, i, allocator, name));
        if (strcmp(*name, "input_ids") && strcmp(*name, "attention_mask") && strcmp(*name, "token_type_ids"))
            fail("the graph has an input %.100s, which this example does not know", *name);
    }
}

Session *session_open(const Bundle *bundle, const Json *variant, const Json *tower) {
    Session *session = allocate(1, sizeof *session);
    OrtEnv *env;
    OrtSessionOptions *options;
    check(ORT(CreateEnv)(LOG_FATAL, "embed", &env));
    check(ORT(CreateSessionOptions)(&options));
    check(ORT(SetIntraOpNumThreads)(options, 1));
    check(ORT(DisableMemPattern)(options));
    session->session = create(env, options, bundle, variant);
    check(ORT(CreateCpuMemoryInfo)(ARENA_ALLOCATOR, MEMORY_DEFAULT, &session->memory));
    session->output = text_of(json_text(tower, "embedding_output", "fmrt.json"));
    read_inputs(session);
    return session;
}

static OrtValue *tensor(Session *session, int64_t *values, size_t count) {
    OrtValue *value;
    int64_t shape[] = {1, (int64_t)count};
    check(ORT(CreateTensorWithDataAsOrtValue)(session->memory, values, count * sizeof *values, shape, 2, ELEMENT_INT64, &value));
    return value;
}

// The content of a float32 tensor [1, dim].
static float *vector_of(OrtValue *value, size_t *dim) {
    OrtTensorTypeAndShapeInfo *info;
    int type;
    size_t axes;
    int64_t shape[2];
    float *data;
    check(ORT(GetTensorTypeAndShape)(value, &info));
    check(ORT(GetTensorElementType)(info, &type));
    check(ORT(GetDimensionsCount)(info, &axes));
    if (type != ELEMENT_FLOAT || axes != 2) fail("the graph's output is no float32 [1, dim]");
    check(ORT(GetDimensions)(info, shape, 2));
    ORT(ReleaseTensorTypeAndShapeInfo)(info);
    check(ORT(GetTensorMutableData)(value, (void **)&data));
    *dim = (size_t)shape[1];
    float *vector = allocate(*dim, sizeof *vector);
    memcpy(vector, data, *dim * sizeof *vector);
    for (size_t i = 0; i < *dim; i++)
        if (vector[i] - vector[i] != 0) fail("the vector has NaN or infinity in it");
    return vector;
}

float *session_run(Session *session, const Numbers *ids, size_t *dim) {
    int64_t *rows = allocate(3 * ids->count, sizeof *rows);
    for (size_t i = 0; i < ids->count; i++) {
        rows[i] = ids->at[i];
        rows[ids->count + i] = 1;
    }
    OrtValue *inputs[3], *output = NULL;
    for (size_t i = 0; i < session->count; i++) {
        const char *name = session->inputs[i];
        int row = !strcmp(name, "input_ids") ? 0 : !strcmp(name, "attention_mask") ? 1 : 2;
        inputs[i] = tensor(session, rows + (size_t)row * ids->count, ids->count);
    }
    check(ORT(Run)(session->session, NULL, (const char *const *)session->inputs, (const OrtValue *const *)inputs,
                   session->count, (const char *const *)&session->output, 1, &output));
    float *vector = vector_of(output, dim);
    for (size_t i = 0; i < session->count; i++) ORT(ReleaseValue)(inputs[i]);
    ORT(ReleaseValue)(output);
    free(rows);
    return vector;
}
