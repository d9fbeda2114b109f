// The part of ONNX Runtime's C API that this example uses.
//
// The registries ship ONNX Runtime's library without its header. The library gives a table of
// functions, to whose end each version adds, so that the places of functions never change.
// With ONNX Runtime's own archive at hand, include its onnxruntime_c_api.h instead.
#ifndef ONNXRUNTIME_H
#define ONNXRUNTIME_H

#include <stddef.h>
#include <stdint.h>

// Of the newest function below, of ONNX Runtime 1.18.
enum { API_VERSION = 18 };
enum { LOG_FATAL = 4, ARENA_ALLOCATOR = 1, MEMORY_DEFAULT = 0, ELEMENT_FLOAT = 1, ELEMENT_INT64 = 7 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef void (*OrtEntry)(void);
typedef struct {
    const OrtEntry *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

const OrtApiBase *OrtGetApiBase(void);

// Places in the table, and the types of the functions there.
enum {
    ORT_GetErrorMessage = 2,
    ORT_CreateEnv = 3,
    ORT_CreateSession = 7,
    ORT_CreateSessionFromArray = 8,
    ORT_Run = 9,
    ORT_CreateSessionOptions = 10,
    ORT_DisableMemPattern = 17,
    ORT_SetIntraOpNumThreads = 24,
    ORT_SessionGetInputCount = 30,
    ORT_SessionGetInputName = 36,
    ORT_CreateTensorWithDataAsOrtValue = 49,
    ORT_GetTensorMutableData = 51,
    ORT_GetTensorElementType = 60,
    ORT_GetDimensionsCount = 61,
    ORT_GetDimensions = 62,
    ORT_GetTensorTypeAndShape = 65,
    ORT_CreateCpuMemoryInfo = 69,
    ORT_GetAllocatorWithDefaultOptions = 78,
    ORT_ReleaseValue = 96,
    ORT_ReleaseTensorTypeAndShapeInfo = 99,
    ORT_AddExternalInitializersFromFilesInMemory = 279
};

typedef const char *OrtGetErrorMessage(const OrtStatus *status);
typedef OrtStatus *OrtCreateEnv(int severity, const char *name, OrtEnv **env);
typedef OrtStatus *OrtCreateSession(const OrtEnv *, const char *path, const OrtSessionOptions *, OrtSession **);
typedef OrtStatus *OrtCreateSessionFromArray(const OrtEnv *, const void *graph, size_t size, const OrtSessionOptions *, OrtSession **);
typedef OrtStatus *OrtRun(OrtSession *, const OrtRunOptions *, const char *const *input_names, const OrtValue *const *inputs,
                          size_t input_count, const char *const *output_names, size_t output_count, OrtValue **outputs);
typedef OrtStatus *OrtCreateSessionOptions(OrtSessionOptions **);
typedef OrtStatus *OrtDisableMemPattern(OrtSessionOptions *);
typedef OrtStatus *OrtSetIntraOpNumThreads(OrtSessionOptions *, int threads);
typedef OrtStatus *OrtSessionGetInputCount(const OrtSession *, size_t *count);
typedef OrtStatus *OrtSessionGetInputName(const OrtSession *, size_t place, OrtAllocator *, char **name);
typedef OrtStatus *OrtCreateTensorWithDataAsOrtValue(const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *shape,
                                                     size_t axes, int element_type, OrtValue **);
typedef OrtStatus *OrtGetTensorMutableData(OrtValue *, void **data);
typedef OrtStatus *OrtGetTensorElementType(const OrtTensorTypeAndShapeInfo *, int *type);
typedef OrtStatus *OrtGetDimensionsCount(const OrtTensorTypeAndShapeInfo *, size_t *axes);
typedef OrtStatus *OrtGetDimensions(const OrtTensorTypeAndShapeInfo *, int64_t *shape, size_t axes);
typedef OrtStatus *OrtGetTensorTypeAndShape(const OrtValue *, OrtTensorTypeAndShapeInfo **);
typedef OrtStatus *OrtCreateCpuMemoryInfo(int allocator, int memory, OrtMemoryInfo **);
typedef OrtStatus *OrtGetAllocatorWithDefaultOptions(OrtAllocator **);
typedef void OrtReleaseValue(OrtValue *);
typedef void OrtReleaseTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo *);
typedef OrtStatus *OrtAddExternalInitializersFromFilesInMemory(OrtSessionOptions *, const char *const *names, char *const *contents,
                                                               const size_t *sizes, size_t count);

#endif
