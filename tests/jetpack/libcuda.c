/* A stub of libcuda.so.1: answers as the driver of a Jetson Orin under JetPack 6.2, in the memory of this machine.

   Real: the names and signatures (CUDA's public headers), the order of work in streams, when a call has to wait,
   capture, which statuses last, and the kernels: they are those of frames.cu, compiled for the host.
   Not real: everything about time and about the cubins' machine code. What is put into a stream waits until somebody asks
   for it, as late as CUDA may run it. Addresses of the device can't be used by the host, as on a Jetson: they are
   those of the host with a bit on top; memory that was registered has another address for the device, too.

   Settings come from the variable EDGEINFER_STUB and from the file stub.conf beside this library (or the one that
   EDGEINFER_STUB_FILE names), which is read again when it changes: words of the form NAME=VALUE. */

#define _GNU_SOURCE
#include "stub.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL = 700,
    LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, WRONG_THREAD = 908
};

/* ---- settings */

typedef struct { char name[48]; char value[200]; } Setting;
static Setting settings[64];
static int setting_count;
static char settings_path[4096];
static struct timespec settings_time;
static long settings_size = -1;
static pthread_mutex_t settings_lock = PTHREAD_MUTEX_INITIALIZER;

static void take(char *text) {
    char *rest = NULL;
    for (char *word = strtok_r(text, ", \t\r\n", &rest); word; word = strtok_r(NULL, ", \t\r\n", &rest)) {
        char *equals = strchr(word, '=');
        if (!equals || setting_count == 64) continue;
        *equals = 0;
        Setting *made = &settings[setting_count++];
        snprintf(made->name, sizeof made->name, "%s", word);
        snprintf(made->value, sizeof made->value, "%s", equals + 1);
    }
}

static void find_settings(void) {
    const char *given = getenv("EDGEINFER_STUB_FILE");
    Dl_info here;
    if (given) {
        snprintf(settings_path, sizeof settings_path, "%s", given);
    } else if (dladdr((void *)find_settings, &here)) {
        snprintf(settings_path, sizeof settings_path, "%s", here.dli_fname);
        char *slash = strrchr(settings_path, '/');
        strcpy(slash ? slash + 1 : settings_path, "stub.conf");
    }
}

static void read_settings(void) {
    struct stat now = {0};
    if (!settings_path[0]) find_settings();
    if (stat(settings_path, &now)) now.st_size = 0;
    if (now.st_size == settings_size && !memcmp(&now.st_mtim, &settings_time, sizeof settings_time)) return;
    settings_size = now.st_size;
    settings_time = now.st_mtim;
    setting_count = 0;
    char text[8192] = "";
    FILE *file = fopen(settings_path, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        take(text);
    }
    snprintf(text, sizeof text, "%s", getenv("EDGEINFER_STUB") ? getenv("EDGEINFER_STUB") : "");
    take(text);
}

/* The first of that name counts: the file before the variable. */
static int setting_text(const char *name, char *value, size_t size) {
    int found = 0;
    pthread_mutex_lock(&settings_lock);
    read_settings();
    for (int i = 0; i < setting_count && !found; i++)
        if (!strcmp(settings[i].name, name)) found = 1, snprintf(value, size, "%s", settings[i].value);
    pthread_mutex_unlock(&settings_lock);
    return found;
}

static long setting(const char *name, long otherwise) {
    char text[200];
    return setting_text(name, text, sizeof text) ? atol(text) : otherwise;
}

/* ---- every call */

static int lost;                     /* the status that ended the context */
static pid_t started;                /* the process that called cuInit */
static __thread void *current;       /* its context */
static char primary;                 /* the primary context: its address */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

static int is_sticky(int status) {
    return status == 700 || status == 702 || (status >= 709 && status <= 720) || status == 999;
}

static int failed(int status) {
    if (is_sticky(status)) lost = status;
    return status;
}

static int enter(const char *name, int needs_context) {
    int wanted = (int)setting(name, 0);
    if (wanted) return failed(wanted);
    if (started != getpid()) return NOT_INITIALIZED; /* a context does not survive a fork */
    if (lost) return lost;
    return needs_context && !current ? INVALID_CONTEXT : OK;
}

#define ENTER(needs_context) do { int why = enter(__func__, needs_context); if (why) return why; } while (0)
#define EXPORT __attribute__((visibility("default")))

/* ---- the device */

/* What libcuda of a Jetson opens first. Without the right to it, it says so on stderr and gives CUDA_ERROR_NOT_SUPPORTED,
   as users in no group video report; in a container without the nodes they are missing. */
static int open_nodes(void) {
    char nodes[200], *rest = NULL;
    if (!setting_text("nodes", nodes, sizeof nodes)) return OK;
    for (char *node = strtok_r(nodes, ":", &rest); node; node = strtok_r(NULL, ":", &rest))
        if (access(node, R_OK)) {
            fprintf(stderr, "NvRmMemInitNvmap failed with %s\n549: Memory Manager Not supported\n\n"
                            "****NvRmMemInit failed**** error type: 196626\n\n", strerror(errno));
            return NOT_SUPPORTED;
        }
    return OK;
}

EXPORT int cuInit(unsigned flags) {
    int wanted = (int)setting("cuInit", 0);
    if (wanted) return failed(wanted);
    if (flags) return INVALID_VALUE;
    int status = open_nodes();
    if (!status) started = getpid();
    return status;
}

EXPORT int cuDriverGetVersion(int *version) {
    int wanted = (int)setting("cuDriverGetVersion", 0);
    *version = (int)setting("driver", 12060);
    return wanted;
}

EXPORT int cuDeviceGetCount(int *count) { ENTER(0); *count = 1; return OK; }
EXPORT int cuDeviceGet(int *device, int ordinal) { ENTER(0); *device = 0; return ordinal ? INVALID_DEVICE : OK; }

EXPORT int cuDeviceGetName(char *name, int size, int device) {
    ENTER(0);
    char text[200] = "Orin";
    setting_text("name", text, sizeof text);
    snprintf(name, (size_t)size, "%s", text);
    return device ? INVALID_DEVICE : OK;
}

static size_t total_memory(void) { return (size_t)setting("memory", 7990000000L); }
static size_t used;

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) { ENTER(0); *bytes = total_memory(); return device ? INVALID_DEVICE : OK; }

static void capability(int *major, int *minor) {
    char text[200] = "8.7";
    setting_text("capability", text, sizeof text);
    *major = atoi(text);
    *minor = strchr(text, '.') ? atoi(strchr(text, '.') + 1) : 0;
}

/* CUdevice_attribute of cuda.h; the numbers are cudaDeviceAttr's, too. What is not listed is 0. */
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(0);
    int major, minor;
    capability(&major, &minor);
    switch (attribute) {
    case 1: *value = 1024; break;                           /* max threads per block */
    case 2: case 3: *value = 1024; break;                   /* max block x, y */
    case 4: *value = 64; break;                             /* max block z */
    case 5: *value = 2147483647; break;                     /* max grid x */
    case 6: case 7: *value = 65535; break;                  /* max grid y, z */
    case 8: *value = 49152; break;                          /* shared memory per block */
    case 10: *value = 32; break;                            /* warp */
    case 16: *value = (int)setting("sms", 8); break;        /* multiprocessors */
    case 18: *value = (int)setting("integrated", 1); break;
    case 19: case 41: *value = 1; break;                    /* can map host memory, unified addressing */
    case 75: *value = major; break;
    case 76: *value = minor; break;
    case 83: case 99: *value = 1; break;                    /* managed memory, host register */
    default: *value = 0;                                    /* 91, the host's pointer for registered memory, too */
    }
    return device ? INVALID_DEVICE : OK;
}

EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { ENTER(0); memset(uuid, 0x4a, 16); return device ? INVALID_DEVICE : OK; }

EXPORT int cuGetErrorName(int status, const char **name) {
    static const struct { int status; const char *name; } names[] = {
        {0, "CUDA_SUCCESS"}, {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"},
        {3, "CUDA_ERROR_NOT_INITIALIZED"}, {100, "CUDA_ERROR_NO_DEVICE"}, {101, "CUDA_ERROR_INVALID_DEVICE"},
        {200, "CUDA_ERROR_INVALID_IMAGE"}, {201, "CUDA_ERROR_INVALID_CONTEXT"}, {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {400, "CUDA_ERROR_INVALID_HANDLE"}, {500, "CUDA_ERROR_NOT_FOUND"}, {600, "CUDA_ERROR_NOT_READY"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {719, "CUDA_ERROR_LAUNCH_FAILED"}, {801, "CUDA_ERROR_NOT_SUPPORTED"},
        {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}, {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"}, {999, "CUDA_ERROR_UNKNOWN"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].status == status) return *name = names[i].name, OK;
    return *name = NULL, INVALID_VALUE;
}
EXPORT int cuGetErrorString(int status, const char **text) { return cuGetErrorName(status, text); }

/* ---- contexts: the primary one, and no other */

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) { ENTER(0); *context = &primary; return device ? INVALID_DEVICE : OK; }
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) { return device ? INVALID_DEVICE : OK; }
EXPORT int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { ENTER(0); *flags = 0; *active = current != NULL; return device ? INVALID_DEVICE : OK; }
EXPORT int cuCtxSetCurrent(void *context) { ENTER(0); if (context && context != &primary) return INVALID_CONTEXT; current = context; return OK; }
EXPORT int cuCtxGetCurrent(void **context) { ENTER(0); *context = current; return OK; }
EXPORT int cuCtxGetDevice(int *device) { ENTER(1); *device = 0; return OK; }

/* ---- memory */

enum { DEVICE, PINNED, REGISTERED };
#define DEVICE_BIT (1ULL << 56)
#define MAPPED_BIT (1ULL << 57)

typedef struct Block { char *host; size_t size; int kind; struct Block *next; } Block;
static Block *blocks;

static Address on_device(const Block *block) {
    return (Address)(uintptr_t)block->host | (block->kind == DEVICE ? DEVICE_BIT : block->kind == REGISTERED ? MAPPED_BIT : 0);
}

EXPORT void *edgeinfer_stub_translate(Address address, size_t size) {
    char *found = NULL;
    pthread_mutex_lock(&lock);
    for (Block *block = blocks; block && !found; block = block->next) {
        Address base = on_device(block);
        if (address >= base && address + size <= base + block->size) found = block->host + (address - base);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static Block *block_at(const void *host) { /* with the lock */
    for (Block *block = blocks; block; block = block->next)
        if ((const char *)host >= block->host && (const char *)host < block->host + block->size) return block;
    return NULL;
}

static int is_pinned(const void *host) {
    pthread_mutex_lock(&lock);
    Block *block = block_at(host);
    pthread_mutex_unlock(&lock);
    return block && block->kind != DEVICE;
}

static int add_block(void *host, size_t size, int kind) {
    Block *block = malloc(sizeof *block);
    *block = (Block){host, size, kind, NULL};
    pthread_mutex_lock(&lock);
    int there = block_at(host) != NULL;
    if (!there) block->next = blocks, blocks = block, used += kind == REGISTERED ? 0 : size;
    pthread_mutex_unlock(&lock);
    if (there) free(block);
    return there ? 712 : OK; /* CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED */
}

static int take_block(Address address, int kind) {
    pthread_mutex_lock(&lock);
    Block **at = &blocks, *block = NULL;
    while (*at && !((*at)->kind == kind && (kind == DEVICE ? on_device(*at) : (Address)(uintptr_t)(*at)->host) == address)) at = &(*at)->next;
    if (*at) block = *at, *at = block->next, used -= kind == REGISTERED ? 0 : block->size;
    pthread_mutex_unlock(&lock);
    if (!block) return kind == REGISTERED ? 713 : INVALID_VALUE;
    if (kind != REGISTERED) free(block->host);
    free(block);
    return OK;
}

static int settle_all(void);
static int stop_capture(void);

static int allocate(void **host, size_t size, int kind) {
    if (!size) return INVALID_VALUE;
    if (stop_capture()) return CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&lock);
    int fits = used + size <= total_memory();
    pthread_mutex_unlock(&lock);
    if (!fits || posix_memalign(host, 512, size)) return OUT_OF_MEMORY;
    memset(*host, 0xcc, size);
    return add_block(*host, size, kind);
}

EXPORT int cuMemAlloc_v2(Address *address, size_t size) {
    ENTER(1);
    void *host = NULL;
    int status = allocate(&host, size, DEVICE);
    *address = status ? 0 : (Address)(uintptr_t)host | DEVICE_BIT;
    return status;
}

EXPORT int cuMemFree_v2(Address address) {
    ENTER(1);
    int status = settle_all();
    return status ? status : address ? take_block(address, DEVICE) : OK;
}

EXPORT int cuMemHostAlloc(void **host, size_t size, unsigned flags) { ENTER(1); return flags > 7 ? INVALID_VALUE : allocate(host, size, PINNED); }

EXPORT int cuMemFreeHost(void *host) {
    ENTER(1);
    int status = settle_all();
    return status ? status : take_block((Address)(uintptr_t)host, PINNED);
}

EXPORT int cuMemHostRegister_v2(void *host, size_t size, unsigned flags) {
    ENTER(1);
    return !host || !size || flags > 15 ? INVALID_VALUE : add_block(host, size, REGISTERED);
}

EXPORT int cuMemHostUnregister(void *host) {
    ENTER(1);
    int status = settle_all();
    return status ? status : take_block((Address)(uintptr_t)host, REGISTERED);
}

EXPORT int cuMemHostGetDevicePointer_v2(Address *address, void *host, unsigned flags) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Block *block = block_at(host);
    *address = block && block->kind != DEVICE ? on_device(block) + (Address)((char *)host - block->host) : 0;
    pthread_mutex_unlock(&lock);
    return flags || !*address ? INVALID_VALUE : OK;
}

EXPORT int cuMemGetInfo_v2(size_t *spare, size_t *total) {
    ENTER(1);
    *total = total_memory();
    *spare = *total > used ? *total - used : 0;
    return OK;
}

/* ---- streams */

typedef struct Task {
    int (*run)(struct Task *);
    Address device;
    void *host, *own;          /* `own`: what pageable memory held when the copy was asked for */
    size_t size;
    int value;
    int (*callback)(void *);
    char kernel[32];
    unsigned grid[3], block[3];
    unsigned char arguments[128];
    struct Task *next;
} Task;

typedef struct Stream {
    Task *first, *last;
    long put, done;            /* how many tasks ever were */
    int busy;
    int capturing;             /* 1; 2: and something was done that can't be captured */
    pthread_t capturer;
    Task *captured, *captured_last;
    struct Stream *next;
} Stream;

typedef struct Event { Stream *stream; long position; struct Event *next; } Event;

static Stream legacy, *streams;
static Event *events;

static Stream *stream_of(void *handle) { /* with the lock */
    if (handle == NULL || handle == (void *)1 || handle == (void *)2) return &legacy;
    for (Stream *stream = streams; stream; stream = stream->next) if (stream == handle) return stream;
    return NULL;
}

static void append(Task **first, Task **last, Task *task) {
    if (*first) (*last)->next = task; else *first = task;
    *last = task;
}

/* `task` is copied. */
static int put(void *handle, const Task *task) {
    Task *made = malloc(sizeof *made);
    *made = *task;
    made->next = NULL;
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    if (stream && stream->capturing) append(&stream->captured, &stream->captured_last, made);
    else if (stream) append(&stream->first, &stream->last, made), stream->put++;
    pthread_mutex_unlock(&lock);
    if (!stream) free(made);
    return stream ? OK : INVALID_HANDLE;
}

/* Runs what is in a stream up to a position. Only one thread runs a stream's tasks, and none while it holds the lock: a
   task may want the interpreter, which another caller may hold. */
static int settle(Stream *stream, long position, int wait) {
    int status = OK;
    while (setting("hold", 0)) {
        if (!wait) return NOT_READY;
        usleep(1000);
    }
    pthread_mutex_lock(&lock);
    while (!status && stream->done < position) {
        if (stream->busy) {
            if (!wait) { status = NOT_READY; break; }
            pthread_cond_wait(&moved, &lock);
            status = lost;
            continue;
        }
        Task *task = stream->first;
        if (!task) break;
        stream->first = task->next;
        stream->busy = 1;
        pthread_mutex_unlock(&lock);
        status = lost ? lost : failed(task->run(task));
        free(task->own);
        free(task);
        pthread_mutex_lock(&lock);
        stream->busy = 0;
        stream->done++;
        pthread_cond_broadcast(&moved);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static int settle_all(void) {
    int status = settle(&legacy, legacy.put, 1);
    for (Stream *stream = streams; stream && !status; stream = stream->next) status = settle(stream, stream->put, 1);
    return status;
}

/* What this thread does now can't be captured (cudaStreamCaptureModeThreadLocal). */
static int stop_capture(void) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (Stream *stream = streams; stream; stream = stream->next)
        if (stream->capturing && pthread_equal(stream->capturer, pthread_self())) found = stream->capturing = 2;
    pthread_mutex_unlock(&lock);
    return found;
}

EXPORT int cuStreamCreate(void **handle, unsigned flags) {
    ENTER(1);
    if (flags > 1) return INVALID_VALUE;
    Stream *stream = calloc(1, sizeof *stream);
    pthread_mutex_lock(&lock);
    stream->next = streams, streams = stream;
    pthread_mutex_unlock(&lock);
    *handle = stream;
    return OK;
}

EXPORT int cuStreamDestroy_v2(void *handle) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    pthread_mutex_unlock(&lock);
    if (!stream || stream == &legacy) return INVALID_HANDLE;
    int status = settle(stream, stream->put, 1);
    pthread_mutex_lock(&lock);
    for (Stream **at = &streams; *at; at = &(*at)->next) if (*at == stream) { *at = stream->next; break; }
    for (Event *event = events; event; event = event->next) if (event->stream == stream) event->stream = NULL;
    pthread_mutex_unlock(&lock);
    free(stream);
    return status;
}

static int reached(void *handle, int wait) {
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    int capturing = stream && stream->capturing;
    if (capturing) stream->capturing = 2;
    long position = stream ? stream->put : 0;
    pthread_mutex_unlock(&lock);
    if (!stream) return INVALID_HANDLE;
    return capturing ? CAPTURE_UNSUPPORTED : settle(stream, position, wait);
}

EXPORT int cuStreamSynchronize(void *handle) { ENTER(1); return reached(handle, 1); }
EXPORT int cuStreamQuery(void *handle) { ENTER(1); return reached(handle, 0); }
EXPORT int cuCtxSynchronize(void) { ENTER(1); return settle_all(); }

static int run_callback(Task *task) { return task->callback(task->host); }

EXPORT int edgeinfer_stub_enqueue(void *stream, int (*callback)(void *), void *argument) {
    Task task = {.run = run_callback, .callback = callback, .host = argument};
    return put(stream, &task);
}

/* ---- copies */

static int run_upload(Task *task) {
    void *target = edgeinfer_stub_translate(task->device, task->size);
    if (!target) return ILLEGAL;
    memcpy(target, task->own ? task->own : task->host, task->size);
    return OK;
}

static int run_download(Task *task) {
    void *source = edgeinfer_stub_translate(task->device, task->size);
    if (!source) return ILLEGAL;
    memcpy(task->host, source, task->size);
    return OK;
}

static int run_fill(Task *task) {
    void *target = edgeinfer_stub_translate(task->device, task->size);
    if (!target) return ILLEGAL;
    memset(target, task->value, task->size);
    return OK;
}

static int is_capturing(void *handle) {
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    int capturing = stream && stream->capturing;
    pthread_mutex_unlock(&lock);
    return capturing;
}

/* Pageable memory may be used again as soon as the call is back; pinned memory is read when the copy is made. */
EXPORT int cuMemcpyHtoDAsync_v2(Address target, const void *source, size_t size, void *stream) {
    ENTER(1);
    Task task = {.run = run_upload, .device = target, .host = (void *)source, .size = size};
    if (!is_pinned(source) && !is_capturing(stream)) memcpy(task.own = malloc(size), source, size);
    return put(stream, &task);
}

EXPORT int cuMemcpyDtoHAsync_v2(void *target, Address source, size_t size, void *stream) {
    ENTER(1);
    Task task = {.run = run_download, .device = source, .host = target, .size = size};
    int status = put(stream, &task);
    if (status || is_pinned(target) || is_capturing(stream)) return status;
    return reached(stream, 1); /* pageable: it is waited for */
}

EXPORT int cuMemsetD8Async(Address target, unsigned char value, size_t size, void *stream) {
    ENTER(1);
    Task task = {.run = run_fill, .device = target, .value = value, .size = size};
    return put(stream, &task);
}

/* ---- events */

EXPORT int cuEventCreate(void **handle, unsigned flags) {
    ENTER(1);
    if (flags > 7) return INVALID_VALUE;
    Event *event = calloc(1, sizeof *event);
    pthread_mutex_lock(&lock);
    event->next = events, events = event;
    pthread_mutex_unlock(&lock);
    *handle = event;
    return OK;
}

static Event *event_of(void *handle) { /* with the lock */
    for (Event *event = events; event; event = event->next) if (event == handle) return event;
    return NULL;
}

EXPORT int cuEventDestroy_v2(void *handle) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Event *event = event_of(handle);
    if (event) for (Event **at = &events; *at; at = &(*at)->next) if (*at == event) { *at = event->next; break; }
    pthread_mutex_unlock(&lock);
    free(event);
    return event ? OK : INVALID_HANDLE;
}

EXPORT int cuEventRecord(void *handle, void *stream_handle) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Event *event = event_of(handle);
    Stream *stream = stream_of(stream_handle);
    if (event && stream && !stream->capturing) event->stream = stream, event->position = stream->put;
    pthread_mutex_unlock(&lock);
    return event && stream ? OK : INVALID_HANDLE;
}

static int happened(void *handle, int wait) {
    pthread_mutex_lock(&lock);
    Event *event = event_of(handle);
    Stream *stream = event ? event->stream : NULL;
    long position = event ? event->position : 0;
    pthread_mutex_unlock(&lock);
    if (!event) return INVALID_HANDLE;
    return stream ? settle(stream, position, wait) : OK;
}

EXPORT int cuEventQuery(void *handle) { ENTER(1); return happened(handle, 0); }
EXPORT int cuEventSynchronize(void *handle) { ENTER(1); return happened(handle, 1); }

/* ---- graphs */

typedef struct Graph { Task *first; } Graph;

EXPORT int cuStreamBeginCapture_v2(void *handle, int mode) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    int fits = stream && stream != &legacy && !stream->capturing && mode >= 0 && mode <= 2;
    if (fits) stream->capturing = 1, stream->capturer = pthread_self(), stream->captured = NULL;
    pthread_mutex_unlock(&lock);
    return fits ? OK : CAPTURE_UNSUPPORTED;
}

EXPORT int cuStreamIsCapturing(void *handle, int *state) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    *state = stream ? stream->capturing : 0;
    pthread_mutex_unlock(&lock);
    return stream ? OK : INVALID_HANDLE;
}

EXPORT int cuStreamEndCapture(void *handle, void **graph) {
    ENTER(1);
    *graph = NULL;
    pthread_mutex_lock(&lock);
    Stream *stream = stream_of(handle);
    int capturing = stream ? stream->capturing : 0;
    int own = capturing && pthread_equal(stream->capturer, pthread_self());
    Task *tasks = own ? stream->captured : NULL;
    if (own) stream->capturing = 0, stream->captured = NULL;
    pthread_mutex_unlock(&lock);
    if (!capturing) return INVALID_VALUE;
    if (!own) return WRONG_THREAD;
    if (capturing == 2) return CAPTURE_INVALIDATED;
    Graph *made = malloc(sizeof *made);
    made->first = tasks;
    *graph = made;
    return OK;
}

static Task *copied(const Task *from) {
    Task *first = NULL, *last = NULL;
    for (; from; from = from->next) {
        Task *task = malloc(sizeof *task);
        *task = *from;
        task->next = NULL;
        append(&first, &last, task);
    }
    return first;
}

EXPORT int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    ENTER(1);
    if (!graph || flags) return INVALID_VALUE;
    Graph *made = malloc(sizeof *made);
    made->first = copied(((Graph *)graph)->first);
    *executable = made;
    return OK;
}

EXPORT int cuGraphDestroy(void *graph) {
    ENTER(1);
    if (!graph) return INVALID_VALUE;
    for (Task *task = ((Graph *)graph)->first, *next; task; task = next) next = task->next, free(task);
    free(graph);
    return OK;
}
EXPORT int cuGraphExecDestroy(void *executable) { ENTER(1); return cuGraphDestroy(executable); }

EXPORT int cuGraphLaunch(void *executable, void *stream) {
    ENTER(1);
    if (!executable) return INVALID_VALUE;
    int status = OK;
    for (const Task *task = ((Graph *)executable)->first; task && !status; task = task->next) status = put(stream, task);
    return status;
}

/* ---- kernels */

typedef struct Module { char *image; size_t size; } Module;
typedef struct Function { char name[32]; } Function;

/* Of a cubin, an ELF file: its length by the section table at its end, and its architecture in e_flags: in the lowest
   byte before CUDA 13, in the second one since. */
static size_t elf_size(const unsigned char *image) {
    uint64_t sections;
    uint16_t entry, count;
    memcpy(&sections, image + 40, 8);
    memcpy(&entry, image + 58, 2);
    memcpy(&count, image + 60, 2);
    return sections + (size_t)entry * count;
}

EXPORT int cuModuleLoadData(void **handle, const void *image) {
    ENTER(1);
    const unsigned char *bytes = image;
    if (!bytes || memcmp(bytes, "\177ELF", 4)) return INVALID_IMAGE;
    int major, minor, made_for = bytes[7] == 0x41 ? bytes[49] : bytes[48];
    capability(&major, &minor);
    if (made_for / 10 != major || made_for % 10 > minor) return NO_BINARY;
    Module *module = malloc(sizeof *module);
    module->size = elf_size(bytes);
    memcpy(module->image = malloc(module->size), image, module->size);
    *handle = module;
    return OK;
}

EXPORT int cuModuleUnload(void *handle) {
    ENTER(1);
    free(((Module *)handle)->image);
    free(handle);
    return OK;
}

EXPORT int cuModuleGetFunction(void **function, void *handle, const char *name) {
    ENTER(1);
    Module *module = handle;
    if (!edgeinfer_stub_arguments(name) || !memmem(module->image, module->size, name, strlen(name) + 1)) return NOT_FOUND;
    Function *made = calloc(1, sizeof *made); /* as long as the process: handles of functions are never given back */
    snprintf(made->name, sizeof made->name, "%s", name);
    *function = made;
    return OK;
}

static int run_kernel(Task *task) {
    const int *sizes = edgeinfer_stub_arguments(task->kernel);
    void *places[16];
    for (int i = 0, at = 0; sizes[i]; at += sizes[i++]) places[i] = task->arguments + at;
    return edgeinfer_stub_kernel(task->kernel, task->grid, task->block, places);
}

EXPORT int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
    ENTER(1);
    if (!function || !parameters || extra || (size_t)block_x * block_y * block_z > 1024 || !grid_x || !grid_y || !grid_z)
        return INVALID_VALUE;
    Task task = {.run = run_kernel, .grid = {grid_x, grid_y, grid_z}, .block = {block_x, block_y, block_z}, .size = shared};
    memcpy(task.kernel, ((Function *)function)->name, sizeof task.kernel);
    const int *sizes = edgeinfer_stub_arguments(task.kernel);
    for (int i = 0, at = 0; sizes[i]; at += sizes[i++]) memcpy(task.arguments + at, parameters[i], (size_t)sizes[i]);
    return put(stream, &task);
}

/* ---- finding functions */

EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    static const char *endings[] = {"_v3", "_v2", ""};
    char full[128];
    (void)flags, (void)version;
    *function = NULL;
    Dl_info here;
    void *own = dladdr((void *)read_settings, &here) ? dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
    for (int i = 0; own && i < 3 && !*function; i++) {
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        *function = dlsym(own, full);
    }
    if (found) *found = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}

/* The runtime inside NVIDIA's own cuda-bindings is linked statically and looks for some 900 functions above, most of which
   are not here; then it asks for tables that no public header describes. What was seen of it with this stub:
   cuda-bindings 13.4 on a driver that says 12060 or 11040: error 35 (cudaErrorInsufficientDriver) from every call, before
   any of the private tables matters. cuda-bindings 12.9.10 on 12060: cudaRuntimeGetVersion and cudaDriverGetVersion
   answer; every other call is error 500 (cudaErrorSymbolNotFound) once a table is refused here; with an empty table
   it asks for a second one, calls into it and crashes. So these tables are refused, nothing of them is imitated, and
   the product runs on the stub of libcudart. The driver's half of the bindings (cuda.bindings.driver) works on the stub. */
EXPORT int cuGetExportTable(const void **table, const unsigned char *uuid) {
    (void)uuid;
    *table = NULL;
    return NOT_FOUND;
}
