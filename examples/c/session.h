// A text graph in ONNX Runtime, on one thread of the CPU.
#ifndef SESSION_H
#define SESSION_H

#include "bundle.h"
#include "json.h"

typedef struct Session Session;

// `variant` and `tower` are those of fmrt.json.
Session *session_open(const Bundle *bundle, const Json *variant, const Json *tower);

// A text's vector, float32 [dim], which the caller frees.
float *session_run(Session *session, const Numbers *ids, size_t *dim);

const char *session_runtime_version(void);

#endif
