/* A CUDA driver without a GPU, for tests: it copies memory, runs no kernel, and is strict about how it is asked.
 *
 * Each call is a line in the file that DRIVER_LOG names. DRIVER_VERSION (11080 for CUDA 11.8), DRIVER_CAPABILITY (75 for
 * 7.5), DRIVER_GPUS, DRIVER_MEMORY (bytes) make it another machine; after DRIVER_LAUNCHES graph launches every call fails, as
 * after an illegal access. Kernels are to overlap where a GPU and its driver do that, unless DRIVER_OVERLAP is 0; with
 * DRIVER_CAPTURES_EARLY 0 it does not capture such launches. With DRIVER_ANSWER, every 32-bit word that comes from the GPU
 * is that number, as if kernels had answered. It is CUPTI as well, and records what it was asked for. Values and names are those of the CUDA
 * driver API and of CUPTI 11.8. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_PTX = 218, NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_UNJOINED = 904
};
enum { STREAMS = 64, LOG_BUFFER = 5, LOG_SIZE = 6, MAX_SHARED_ATTRIBUTE = 8, MAJOR = 75, MINOR = 76, EARLY = 6 };
/* What every GPU from compute capability 8.0 on has. */
enum { SHARED_LIMIT = 99 << 10, THREADS_LIMIT = 1024, GRID_LIMIT = 65535 };

/* How many launches of each stream have happened before a point in a stream. */
typedef struct { uint64_t launches[STREAMS]; } Clock;
typedef struct { int number, capture, after_kernel; Clock before; } Stream;
typedef struct { int capture; Clock before; } Event;
typedef struct { char *ptx; } Module;
typedef struct { int shared; } Function;
typedef struct { int launches; } Graph;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread void *current;
static int streams, captures, failed, launched_graphs;
static size_t used;
static Stream *all[STREAMS];

static long setting(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static void note(const char *call) {
    static FILE *file;
    pthread_mutex_lock(&lock);
    if (!file && getenv("DRIVER_LOG")) file = fopen(getenv("DRIVER_LOG"), "a");
    if (file) {
        fprintf(file, "%s\n", call);
        fflush(file);
    }
    pthread_mutex_unlock(&lock);
}

/* What every call begins with; those after cuCtxSetCurrent need a context. */
#define CALL() do { note(__func__); if (failed) return ILLEGAL_ADDRESS; } while (0)
#define IN_CONTEXT() do { CALL(); if (!current) return INVALID_CONTEXT; } while (0)

Result cuGetErrorName(Result error, const char **name) {
    *name = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR";
    return SUCCESS;
}
Result cuGetErrorString(Result error, const char **text) {
    static __thread char number[32];
    snprintf(number, sizeof number, "error %d", error);
    *text = number;
    return SUCCESS;
}
Result cuDriverGetVersion(int *version) { CALL(); *version = setting("DRIVER_VERSION", 11080); return SUCCESS; }
Result cuInit(unsigned flags) { CALL(); return flags ? INVALID_VALUE : SUCCESS; }
Result cuDeviceGetCount(int *count) { CALL(); *count = setting("DRIVER_GPUS", 1); return SUCCESS; }
Result cuDeviceGet(int *device, int ordinal) { CALL(); *device = ordinal; return SUCCESS; }
Result cuDeviceGetName(char *name, int length, int device) { CALL(); snprintf(name, length, "GPU %d of a test", device); return SUCCESS; }
Result cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    CALL();
    long capability = setting("DRIVER_CAPABILITY", 80);
    *value = which == MAJOR ? capability / 10 : which == MINOR ? capability % 10 : 0;
    return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; CALL(); *context = &streams; return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; CALL(); return SUCCESS; }
Result cuCtxSetCurrent(void *context) { CALL(); current = context; return SUCCESS; }

/* CUPTI: records go into one buffer at a time. */
typedef struct { uint32_t kind; uint8_t copy, unused[3]; uint64_t bytes; } Copy;
typedef struct { uint32_t kind, type; uint64_t unused; } Other;
enum { COPY = 1, KERNEL = 10, WAIT = 38, MEMORY = 49, NO_MORE = 12, HTOD = 1, DTOH = 2, DTOD = 8 };
static void (*request)(uint8_t **, size_t *, size_t *);
static void (*complete)(void *, uint32_t, uint8_t *, size_t, size_t);
static uint64_t enabled;
static uint8_t *buffer;
static size_t capacity, filled;

Result cuptiActivityFlushAll(uint32_t flag) {
    (void)flag;
    uint8_t *full = buffer;
    buffer = NULL;
    if (full) complete(NULL, 0, full, capacity, filled);
    return SUCCESS;
}
static void record(uint32_t kind, uint32_t detail, uint64_t bytes) {
    if (!(enabled >> kind & 1)) return;
    if (buffer && filled + sizeof(Copy) > capacity) cuptiActivityFlushAll(0);
    if (!buffer) {
        size_t most;
        request(&buffer, &capacity, &most);
        filled = 0;
    }
    Copy copy = {kind, detail, {0}, bytes};
    Other other = {kind, detail, 0};
    memcpy(buffer + filled, kind == COPY ? (void *)&copy : (void *)&other, sizeof copy);
    filled += sizeof copy;
}
Result cuptiActivityRegisterCallbacks(void (*asks)(uint8_t **, size_t *, size_t *), void (*gives)(void *, uint32_t, uint8_t *, size_t, size_t)) {
    request = asks;
    complete = gives;
    return SUCCESS;
}
Result cuptiActivityEnable(uint32_t kind) { enabled |= 1ull << kind; return SUCCESS; }
Result cuptiActivityDisable(uint32_t kind) { enabled &= ~(1ull << kind); return SUCCESS; }
Result cuptiActivityGetNextRecord(uint8_t *from, size_t valid, uint8_t **next) {
    *next = *next ? *next + sizeof(Copy) : from;
    return *next + sizeof(Copy) > from + valid ? NO_MORE : SUCCESS;
}

/* Memory. */
static Result get(void **address, size_t bytes) {
    if (used + bytes > (size_t)setting("DRIVER_MEMORY", 1L << 32)) return OUT_OF_MEMORY;
    size_t *block = aligned_alloc(256, 256 + (bytes + 255) / 256 * 256);
    if (!block) return OUT_OF_MEMORY;
    *block = bytes;
    used += bytes;
    *address = (char *)block + 256;
    memset(*address, 0, bytes);
    return SUCCESS;
}
static Result give(void *address) {
    size_t *block = (size_t *)((char *)address - 256);
    used -= *block;
    free(block);
    return SUCCESS;
}
Result cuMemAlloc_v2(void **address, size_t bytes) { IN_CONTEXT(); record(MEMORY, 1, 0); return bytes ? get(address, bytes) : INVALID_VALUE; }
Result cuMemFree_v2(void *address) { IN_CONTEXT(); return give(address); }
Result cuMemHostAlloc(void **address, size_t bytes, unsigned flags) { (void)flags; IN_CONTEXT(); return get(address, bytes); }
Result cuMemFreeHost(void *address) { IN_CONTEXT(); return give(address); }
Result cuMemGetInfo_v2(size_t *left, size_t *total) {
    IN_CONTEXT();
    *total = setting("DRIVER_MEMORY", 1L << 32);
    *left = *total - used;
    return SUCCESS;
}
Result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    record(COPY, HTOD, bytes);
    memcpy(to, from, bytes);
    return SUCCESS;
}
Result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    record(COPY, DTOH, bytes);
    memcpy(to, from, bytes);
    int32_t answer = setting("DRIVER_ANSWER", 0);
    for (size_t i = 0; answer && i + 4 <= bytes; i += 4) memcpy((char *)to + i, &answer, 4);
    return SUCCESS;
}

Result cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    record(COPY, DTOD, bytes);
    memcpy(to, from, bytes);
    return SUCCESS;
}

/* Streams and events. */
Result cuStreamCreate(Stream **stream, unsigned flags) {
    (void)flags;
    IN_CONTEXT();
    if (streams == STREAMS) return OUT_OF_MEMORY;
    *stream = calloc(1, sizeof **stream);
    (*stream)->number = streams;
    all[streams++] = *stream;
    return SUCCESS;
}
Result cuStreamDestroy_v2(Stream *stream) {
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    all[stream->number] = NULL;
    free(stream);
    return SUCCESS;
}
Result cuStreamSynchronize(Stream *stream) { IN_CONTEXT(); return stream->capture ? CAPTURE_UNSUPPORTED : SUCCESS; }
Result cuEventCreate(Event **event, unsigned flags) { (void)flags; IN_CONTEXT(); *event = calloc(1, sizeof **event); return SUCCESS; }
Result cuEventDestroy_v2(Event *event) { IN_CONTEXT(); free(event); return SUCCESS; }
Result cuEventRecord(Event *event, Stream *stream) {
    IN_CONTEXT();
    /* The legacy default stream, where others' work is. */
    if (stream == (Stream *)1) {
        note("legacy");
        memset(event, 0, sizeof *event);
        return SUCCESS;
    }
    event->capture = stream->capture;
    event->before = stream->before;
    return SUCCESS;
}
Result cuEventSynchronize(Event *event) { IN_CONTEXT(); record(WAIT, 1, 0); return event->capture ? CAPTURE_UNSUPPORTED : SUCCESS; }
Result cuEventElapsedTime(float *ms, Event *first, Event *last) {
    (void)first, (void)last;
    IN_CONTEXT();
    *ms = 0.5f;
    return SUCCESS;
}
Result cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    (void)flags;
    IN_CONTEXT();
    if (event->capture) stream->capture = event->capture;
    stream->after_kernel = 0;
    for (int i = 0; i < STREAMS; i++)
        if (event->before.launches[i] > stream->before.launches[i]) stream->before.launches[i] = event->before.launches[i];
    return SUCCESS;
}

/* Kernels. */
static int overlaps(void) {
    return setting("DRIVER_CAPABILITY", 80) >= 90 && setting("DRIVER_VERSION", 11080) >= 12030 && setting("DRIVER_OVERLAP", 1);
}
Result cuModuleLoadDataEx(Module **module, const char *ptx, unsigned count, const int *options, void **values) {
    IN_CONTEXT();
    const char *entry = strstr(ptx, ".entry");
    const char *expected = overlaps() ? ".version 7.8\n.target sm_90\n" : ".version 7.0\n.target sm_80\n";
    int waits = strstr(ptx, "\tgriddepcontrol.wait;\n") && strstr(ptx, "\tgriddepcontrol.launch_dependents;\n");
    if (strncmp(ptx, expected, strlen(expected)) || !entry || strstr(entry + 1, ".entry") || waits != overlaps()) {
        for (unsigned i = 0; i < count; i++)
            if (options[i] == LOG_BUFFER) strcpy(values[i], "one kernel in the oldest PTX that has its instructions is expected");
        return INVALID_PTX;
    }
    *module = malloc(sizeof **module);
    (*module)->ptx = strdup(ptx);
    return SUCCESS;
}
Result cuModuleUnload(Module *module) { IN_CONTEXT(); free(module->ptx); free(module); return SUCCESS; }
Result cuModuleGetFunction(Function **function, Module *module, const char *name) {
    IN_CONTEXT();
    char entry[256];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    if (!strstr(module->ptx, entry)) return NOT_FOUND;
    *function = calloc(1, sizeof **function); /* belongs to the module for ever */
    return SUCCESS;
}
Result cuFuncSetAttribute(Function *function, int which, int value) {
    IN_CONTEXT();
    if (which != MAX_SHARED_ATTRIBUTE || value > SHARED_LIMIT) return INVALID_VALUE;
    function->shared = value;
    return SUCCESS;
}
typedef struct { int id; char unused[4]; union { char bytes[64]; int early; } value; } Attribute;
typedef struct {
    unsigned grid[3], block[3], shared;
    Stream *stream;
    Attribute *attributes;
    unsigned count;
} Configuration;
Result cuLaunchKernelEx(const Configuration *c, Function *function, void **params, void **extra) {
    IN_CONTEXT();
    const unsigned *grid = c->grid, *block = c->block;
    if (!grid[0] || !grid[1] || !grid[2] || grid[1] > GRID_LIMIT || grid[2] > GRID_LIMIT) return INVALID_VALUE;
    if (!block[0] || !block[1] || !block[2] || block[2] > 64) return INVALID_VALUE;
    if ((uint64_t)block[0] * block[1] * block[2] > THREADS_LIMIT) return INVALID_VALUE;
    /* A kernel's own shared memory counts as well, so that nothing is certain to be there that was not asked for. */
    if (c->shared > (unsigned)function->shared || !params || !params[0] || extra) return INVALID_VALUE;
    if (c->count) {
        /* Only what waits for nothing but the kernel before it may begin early. */
        if (c->count != 1 || c->attributes->id != EARLY || c->attributes->value.early != 1) return INVALID_VALUE;
        if (!overlaps() || !c->stream->after_kernel) return INVALID_VALUE;
        if (c->stream->capture && !setting("DRIVER_CAPTURES_EARLY", 1)) return CAPTURE_UNSUPPORTED;
        note("early");
    }
    c->stream->after_kernel = 1;
    c->stream->before.launches[c->stream->number]++;
    return SUCCESS;
}

/* Graphs. */
Result cuStreamBeginCapture_v2(Stream *stream, int mode) {
    (void)mode;
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    stream->capture = ++captures;
    stream->after_kernel = 0;
    return SUCCESS;
}
Result cuStreamEndCapture(Stream *stream, Graph **graph) {
    IN_CONTEXT();
    Result result = SUCCESS;
    int capture = stream->capture;
    *graph = calloc(1, sizeof **graph);
    for (int i = 0; i < streams; i++) {
        if (!all[i] || all[i]->capture != capture) continue;
        /* A branch that the first stream does not wait for would be lost. */
        if (all[i]->before.launches[i] > stream->before.launches[i]) result = CAPTURE_UNJOINED;
        (*graph)->launches += all[i]->before.launches[i];
        all[i]->capture = 0;
    }
    return result;
}
Result cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
    (void)flags;
    IN_CONTEXT();
    if (!graph->launches) return INVALID_VALUE;
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    return SUCCESS;
}
Result cuGraphDestroy(Graph *graph) { IN_CONTEXT(); free(graph); return SUCCESS; }
Result cuGraphUpload(Graph *graph, Stream *stream) { (void)graph; IN_CONTEXT(); return stream->capture ? INVALID_VALUE : SUCCESS; }
Result cuGraphLaunch(Graph *graph, Stream *stream) {
    IN_CONTEXT();
    if (stream->capture) return CAPTURE_UNSUPPORTED;
    /* The launch is accepted; what comes after it learns of the failure. */
    if (++launched_graphs > setting("DRIVER_LAUNCHES", 1L << 30)) failed = 1;
    for (int i = 0; i < graph->launches; i++) record(KERNEL, 0, 0);
    return SUCCESS;
}
Result cuGraphExecDestroy(Graph *graph) { IN_CONTEXT(); free(graph); return SUCCESS; }
