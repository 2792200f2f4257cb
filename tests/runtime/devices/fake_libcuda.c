/* Stands in for NVIDIA's driver: "devices" whose memory is the host's, so that what calls it can be tested.
   FAKE_CUDA_DEVICES: how many there are; without it, cuInit says that there is none. */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int devices(void) { const char *n = getenv("FAKE_CUDA_DEVICES"); return n ? atoi(n) : 0; }
static long out = 0; /* what was made and not given back */
static __thread void *current = NULL;

EXPORT int cuInit(unsigned flags) { return flags ? 1 : devices() ? 0 : 100; }
EXPORT int cuGetErrorString(int code, const char **text) {
    *text = code == 100 ? "no CUDA-capable device is detected" : code == 201 ? "invalid device context" : "invalid argument";
    return 0;
}
EXPORT int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
EXPORT int cuDeviceGetCount(int *n) { *n = devices(); return 0; }
EXPORT int cuDeviceGet(int *handle, int index) { *handle = index; return index < devices() ? 0 : 101; }
EXPORT int cuDeviceGetName(char *name, int length, int handle) { snprintf(name, length, "Fake GPU %d", handle); return 0; }
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int handle) { *bytes = (size_t)80 << 30; return handle < devices() ? 0 : 101; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int handle) { *value = attribute == 75 ? 9 : 0; return 0; }
EXPORT int cuDevicePrimaryCtxRetain(void **context, int handle) { *context = (void *)(size_t)(handle + 1); return 0; }
EXPORT int cuCtxSetCurrent(void *context) { current = context; return 0; }

static int make(void **p, size_t size) {
    if (!current) return 201;
    *p = malloc(size ? size : 1);
    __atomic_add_fetch(&out, 1, __ATOMIC_SEQ_CST);
    return 0;
}
static int drop(void *p) { if (!current) return 201; free(p); __atomic_sub_fetch(&out, 1, __ATOMIC_SEQ_CST); return 0; }

EXPORT int cuMemHostAlloc(void **p, size_t size, unsigned flags) { return flags == 1 ? make(p, size) : 1; }
EXPORT int cuMemFreeHost(void *p) { return drop(p); }
EXPORT int cuMemAlloc_v2(void **p, size_t size) { return make(p, size); }
EXPORT int cuMemFree_v2(void *p) { return drop(p); }
EXPORT int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) {
    if (!current || !stream) return 201;
    memcpy(to, from, size);
    return 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) {
    return cuMemcpyHtoDAsync_v2(to, from, size, stream);
}
/* A handle is the name of a file in /dev/shm: another process's memory. */
typedef struct { char reserved[64]; } Handle;
static struct { char *begin; size_t size; } mapped[16];
EXPORT int cuIpcOpenMemHandle_v2(void **p, Handle handle, unsigned flags) {
    char path[96];
    struct stat found;
    int file, free = 0;
    if (!current) return 201;
    snprintf(path, sizeof path, "/dev/shm/%.64s", handle.reserved);
    while (mapped[free].begin) free++;
    if (flags != 1 || (file = open(path, O_RDWR)) < 0) return 1;
    fstat(file, &found);
    *p = mapped[free].begin = mmap(NULL, found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    mapped[free].size = found.st_size;
    close(file);
    return 0;
}
EXPORT int cuIpcCloseMemHandle(void *p) {
    for (int i = 0; current && i < 16; i++)
        if (mapped[i].begin == p) { munmap(p, mapped[i].size); mapped[i].begin = NULL; return 0; }
    return 1;
}
EXPORT int cuMemGetAddressRange_v2(void **base, size_t *size, void *p) {
    for (int i = 0; current && i < 16; i++)
        if (mapped[i].begin == p) { *base = p; *size = mapped[i].size; return 0; }
    return 1;
}
EXPORT int cuStreamCreate(void **p, unsigned flags) { return flags == 1 ? make(p, 1) : 1; }
EXPORT int cuStreamDestroy_v2(void *p) { return drop(p); }
EXPORT int cuStreamSynchronize(void *p) { return current && p ? 0 : 201; }
EXPORT int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return current && stream && event && !flags ? 0 : 201; }
EXPORT int cuEventCreate(void **p, unsigned flags) { return flags == 2 ? make(p, 1) : 1; }
EXPORT int cuEventDestroy_v2(void *p) { return drop(p); }
EXPORT int cuEventRecord(void *event, void *stream) { return current && stream && event ? 0 : 201; }
EXPORT long fake_cuda_out(void) { return out; }
