/* Stands in for the CUDA runtime under ONNX Runtime's real CUDA provider: memory is the host's, copies are real,
   kernels do nothing. What is copied on a stream while it is captured is recorded, and done again, at the same
   addresses, by each launch of the graph. What may not happen during a capture invalidates it, as in CUDA's
   global mode. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { void *to; const void *from; size_t size; } Copy;
typedef struct { Copy *copies; int count; } Graph;

int fake_captures, fake_launches, fake_refused; /* graphs captured, launched; calls that met a capture */
int fake_waits;                                 /* for a stream */
long fake_allocations;                          /* device memory that is out */

static int capturing, invalid;
static void *captured_stream;
static Graph *graph;
static __thread int device;
static int anything; /* where a handle is asked for */

static int during_capture(const char *what) {
    if (!capturing) return 0;
    invalid = 1;
    fake_refused++;
    fprintf(stderr, "%s during a capture\n", what);
    return 900;
}
static int is_captured(void *stream) { return capturing && stream == captured_stream; }
static int make(void **p, size_t size) { *p = malloc(size ? size : 1); return 0; }

const char *cudaGetErrorName(int code) { return "cudaErrorFake"; }
const char *cudaGetErrorString(int code) { return "the stand-in refuses"; }
void *__cudaRegisterFatBinary(void *binary) { return &anything; }
int __cudaGetKernel(void **kernel) { *kernel = &anything; return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, void **function) { *function = (void *)is_captured; return 0; }

int cudaGetDevice(int *index) { *index = device; return 0; }
int cudaSetDevice(int index) { device = index; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDeviceProperties(void *properties, int index) { memset(properties, 0, 512); return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int index) { *value = 1; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { *left = (size_t)8 << 30; *total = (size_t)16 << 30; return 0; }
int cudaPointerGetAttributes(void *attributes) { memset(attributes, 0, 32); return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 1; return 0; }

int cudaEventCreate(void **event) { return make(event, 8); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return make(event, 8); }
int cudaEventDestroy(void *event) { free(event); return 0; }
int cudaEventElapsedTime(float *milliseconds) { *milliseconds = 1; return 0; }
int cudaStreamCreate(void **stream) { return make(stream, 8); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return make(stream, 8); }
int cudaStreamDestroy(void *stream) { free(stream); return 0; }
int cudaStreamSynchronize(void *stream) {
    fake_waits++;
    return is_captured(stream) ? during_capture("cudaStreamSynchronize") : 0;
}
int cudaDeviceSynchronize(void) { return during_capture("cudaDeviceSynchronize"); }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    if (!is_captured(stream)) function(data);
    return 0;
}

int cudaMalloc(void **p, size_t size) {
    int refused = during_capture("cudaMalloc");
    if (refused) return refused;
    __atomic_add_fetch(&fake_allocations, 1, __ATOMIC_SEQ_CST);
    return make(p, size);
}
int cudaFree(void *p) {
    int refused = during_capture("cudaFree");
    if (refused) return refused;
    if (p) __atomic_sub_fetch(&fake_allocations, 1, __ATOMIC_SEQ_CST);
    free(p);
    return 0;
}
int cudaHostAlloc(void **p, size_t size, unsigned flags) {
    int refused = during_capture("cudaHostAlloc");
    return refused ? refused : make(p, size);
}
int cudaMallocHost(void **p, size_t size) { return cudaHostAlloc(p, size, 0); }
int cudaFreeHost(void *p) {
    int refused = during_capture("cudaFreeHost");
    if (!refused) free(p);
    return refused;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    int refused = during_capture("cudaMemcpy");
    if (!refused) memcpy(to, from, size);
    return refused;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if (!is_captured(stream)) { memcpy(to, from, size); return 0; }
    graph->copies = realloc(graph->copies, (graph->count + 1) * sizeof(Copy));
    graph->copies[graph->count++] = (Copy){to, from, size};
    return 0;
}
int cudaMemsetAsync(void *p, int value, size_t size, void *stream) { memset(p, value, size); return 0; }

int cudaStreamBeginCapture(void *stream, int mode) {
    if (capturing || mode != 0) return 900;
    capturing = 1;
    invalid = 0;
    captured_stream = stream;
    graph = calloc(1, sizeof *graph);
    return 0;
}
int cudaStreamEndCapture(void *stream, void **made) {
    capturing = 0;
    *made = invalid ? NULL : graph;
    fake_captures += !invalid;
    return invalid ? 901 : 0;
}
int cudaStreamIsCapturing(void *stream, int *status) { *status = is_captured(stream); return 0; }
int cudaGraphInstantiate(void **made, void *from) { *made = from; return 0; }
int cudaGraphLaunch(void *launched, void *stream) {
    Graph *from = launched;
    fake_launches++;
    for (int i = 0; i < from->count; i++) memcpy(from->copies[i].to, from->copies[i].from, from->copies[i].size);
    return 0;
}
