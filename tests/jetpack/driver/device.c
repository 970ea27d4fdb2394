/* What every call begins with, the one device, and its primary context. */

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
