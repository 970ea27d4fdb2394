/* A stub of libcudart.so.12 and .13 over the stub driver: the functions that the product calls by name, with the
   signatures of CUDA's public headers. CUDART_VERSION, which the compiler is told, is what it says of itself.

   As the real one it makes the primary context current in every thread that calls it, finds the driver with dlopen,
   and says 35 (cudaErrorInsufficientDriver) where there is none or one of an older major version. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
enum { INVALID_VALUE = 1, INSUFFICIENT_DRIVER = 35 };
typedef uint64_t Address;

static void *driver;
static __thread int last;
static __thread int ready;

static int kept(int status) {
    if (status && status != 600) last = status;
    return status;
}

static void *entry(const char *name) { return driver ? dlsym(driver, name) : NULL; }

static void load(void) { driver = dlopen("libcuda.so.1", RTLD_NOW); }

static int version_of_driver(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    int version = 0;
    int (*ask)(int *) = (int (*)(int *))entry("cuDriverGetVersion");
    return ask && !ask(&version) ? version : 0;
}

static int start(void) {
    if (version_of_driver() / 1000 < CUDART_VERSION / 1000) return INSUFFICIENT_DRIVER;
    int (*init)(unsigned) = (int (*)(unsigned))entry("cuInit");
    int status = init(0);
    return status;
}

static int ensure(void) {
    if (ready) return 0;
    int status = start();
    void *context = NULL;
    if (!status) status = ((int (*)(void **, int))entry("cuDevicePrimaryCtxRetain"))(&context, 0);
    if (!status) status = ((int (*)(void *))entry("cuCtxSetCurrent"))(context);
    ready = !status;
    return status;
}

/* A function of the runtime that is one of the driver's. */
#define SAME(name, below, declared, given, types)                        \
    EXPORT int name declared {                                           \
        int status = ensure();                                           \
        return kept(status ? status : ((int(*) types)entry(below)) given); \
    }

EXPORT int cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return 0; }
EXPORT int cudaDriverGetVersion(int *version) { *version = version_of_driver(); return 0; }
EXPORT int cudaGetLastError(void) { int was = last; last = 0; return was; }
EXPORT int cudaPeekAtLastError(void) { return last; }

EXPORT int cudaGetDeviceCount(int *count) {
    int status = start();
    *count = 0;
    return kept(status ? status : ((int (*)(int *))entry("cuDeviceGetCount"))(count));
}
EXPORT int cudaSetDevice(int device) { return kept(device ? 101 : ensure()); }
EXPORT int cudaGetDevice(int *device) { *device = 0; return kept(start()); }
EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    int status = start();
    return kept(status ? status : ((int (*)(int *, int, int))entry("cuDeviceGetAttribute"))(value, attribute, device));
}

static const char *from_driver(const char *function, int status, const char *otherwise) {
    const char *text = NULL;
    version_of_driver();
    int (*ask)(int, const char **) = (int (*)(int, const char **))entry(function);
    return ask && !ask(status, &text) && text ? text : otherwise;
}
EXPORT const char *cudaGetErrorName(int status) {
    switch (status) { /* the runtime's names are others than the driver's */
    case 0: return "cudaSuccess";
    case 1: return "cudaErrorInvalidValue";
    case 2: return "cudaErrorMemoryAllocation";
    case 3: return "cudaErrorInitializationError";
    case 35: return "cudaErrorInsufficientDriver";
    case 100: return "cudaErrorNoDevice";
    case 600: return "cudaErrorNotReady";
    case 700: return "cudaErrorIllegalAddress";
    case 719: return "cudaErrorLaunchFailure";
    case 801: return "cudaErrorNotSupported";
    case 900: return "cudaErrorStreamCaptureUnsupported";
    case 901: return "cudaErrorStreamCaptureInvalidated";
    case 999: return "cudaErrorUnknown";
    default: return "unrecognized error code";
    }
}
EXPORT const char *cudaGetErrorString(int status) { return from_driver("cuGetErrorString", status, "unrecognized error code"); }

EXPORT int cudaMalloc(void **address, size_t size) {
    int status = ensure();
    if (!status) status = ((int (*)(Address *, size_t))entry("cuMemAlloc_v2"))((Address *)address, size);
    return kept(status);
}
SAME(cudaFree, "cuMemFree_v2", (void *address), ((Address)(uintptr_t)address), (Address))
SAME(cudaHostAlloc, "cuMemHostAlloc", (void **host, size_t size, unsigned flags), (host, size, flags), (void **, size_t, unsigned))
SAME(cudaMallocHost, "cuMemHostAlloc", (void **host, size_t size), (host, size, 0), (void **, size_t, unsigned))
SAME(cudaFreeHost, "cuMemFreeHost", (void *host), (host), (void *))
SAME(cudaHostRegister, "cuMemHostRegister_v2", (void *host, size_t size, unsigned flags), (host, size, flags), (void *, size_t, unsigned))
SAME(cudaHostUnregister, "cuMemHostUnregister", (void *host), (host), (void *))
SAME(cudaHostGetDevicePointer, "cuMemHostGetDevicePointer_v2", (void **address, void *host, unsigned flags), ((Address *)address, host, flags), (Address *, void *, unsigned))
SAME(cudaMemGetInfo, "cuMemGetInfo_v2", (size_t *spare, size_t *total), (spare, total), (size_t *, size_t *))
SAME(cudaDeviceSynchronize, "cuCtxSynchronize", (void), (), (void))

EXPORT int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *stream) {
    int status = ensure();
    if (status) return kept(status);
    if (kind == 1) return kept(((int (*)(Address, const void *, size_t, void *))entry("cuMemcpyHtoDAsync_v2"))((Address)(uintptr_t)target, source, size, stream));
    if (kind == 2) return kept(((int (*)(void *, Address, size_t, void *))entry("cuMemcpyDtoHAsync_v2"))(target, (Address)(uintptr_t)source, size, stream));
    if (kind == 3) return kept(((int (*)(Address, Address, size_t, void *))entry("cuMemcpyDtoDAsync_v2"))((Address)(uintptr_t)target, (Address)(uintptr_t)source, size, stream));
    return kept(INVALID_VALUE); /* what nobody uses is not here */
}

EXPORT int cudaMemcpy2DAsync(void *target, size_t target_pitch, const void *source, size_t source_pitch, size_t width, size_t rows, int kind, void *stream) {
    int status = width > target_pitch || width > source_pitch ? 12 : 0; /* cudaErrorInvalidPitchValue */
    for (size_t row = 0; row < rows && !status; row++)
        status = cudaMemcpyAsync((char *)target + row * target_pitch, (const char *)source + row * source_pitch, width, kind, stream);
    return kept(status);
}

EXPORT int cudaMemsetAsync(void *target, int value, size_t size, void *stream) {
    int status = ensure();
    if (status) return kept(status);
    return kept(((int (*)(Address, unsigned char, size_t, void *))entry("cuMemsetD8Async"))((Address)(uintptr_t)target, (unsigned char)value, size, stream));
}

SAME(cudaStreamCreate, "cuStreamCreate", (void **stream), (stream, 0), (void **, unsigned))
SAME(cudaStreamCreateWithFlags, "cuStreamCreate", (void **stream, unsigned flags), (stream, flags), (void **, unsigned))
SAME(cudaStreamDestroy, "cuStreamDestroy_v2", (void *stream), (stream), (void *))
SAME(cudaStreamSynchronize, "cuStreamSynchronize", (void *stream), (stream), (void *))
SAME(cudaStreamQuery, "cuStreamQuery", (void *stream), (stream), (void *))
SAME(cudaEventCreate, "cuEventCreate", (void **event), (event, 0), (void **, unsigned))
SAME(cudaEventCreateWithFlags, "cuEventCreate", (void **event, unsigned flags), (event, flags), (void **, unsigned))
SAME(cudaEventDestroy, "cuEventDestroy_v2", (void *event), (event), (void *))
SAME(cudaEventRecord, "cuEventRecord", (void *event, void *stream), (event, stream), (void *, void *))
SAME(cudaEventQuery, "cuEventQuery", (void *event), (event), (void *))
SAME(cudaEventSynchronize, "cuEventSynchronize", (void *event), (event), (void *))
SAME(cudaStreamWaitEvent, "cuStreamWaitEvent", (void *stream, void *event, unsigned flags), (stream, event, flags), (void *, void *, unsigned))
SAME(cudaStreamBeginCapture, "cuStreamBeginCapture_v2", (void *stream, int mode), (stream, mode), (void *, int))
SAME(cudaStreamEndCapture, "cuStreamEndCapture", (void *stream, void **graph), (stream, graph), (void *, void **))
SAME(cudaStreamIsCapturing, "cuStreamIsCapturing", (void *stream, int *state), (stream, state), (void *, int *))
SAME(cudaGraphInstantiate, "cuGraphInstantiateWithFlags", (void **executable, void *graph, unsigned long long flags), (executable, graph, flags), (void **, void *, unsigned long long))
SAME(cudaGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags", (void **executable, void *graph, unsigned long long flags), (executable, graph, flags), (void **, void *, unsigned long long))
SAME(cudaGraphDestroy, "cuGraphDestroy", (void *graph), (graph), (void *))
SAME(cudaGraphExecDestroy, "cuGraphExecDestroy", (void *executable), (executable), (void *))
SAME(cudaGraphLaunch, "cuGraphLaunch", (void *executable, void *stream), (executable, stream), (void *, void *))
