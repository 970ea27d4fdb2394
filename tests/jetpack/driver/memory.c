/* Memory of the device and memory that it reaches. The device's lies in files without a name, which other processes can
   map: CUDA's way to share memory (CUDA Driver API, "Unified Addressing" and cuIpcGetMemHandle). */

enum { DEVICE, PINNED, REGISTERED, OPENED };
#define DEVICE_BIT (1ULL << 56)
#define MAPPED_BIT (1ULL << 57)

typedef struct Block { char *host; size_t size; int kind; int file; int opened; struct Block *next; } Block;
typedef struct { pid_t owner; int file; size_t size; char *host; } Shared;
typedef union { Shared shared; unsigned char reserved[64]; } IpcHandle;
static Block *blocks;

static Address on_device(const Block *block) {
    return (Address)(uintptr_t)block->host | (block->kind == DEVICE || block->kind == OPENED ? DEVICE_BIT : block->kind == REGISTERED ? MAPPED_BIT : 0);
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
    return block && block->kind != DEVICE && block->kind != OPENED;
}

static int add_block(void *host, size_t size, int kind, int file) {
    Block *block = malloc(sizeof *block);
    *block = (Block){host, size, kind, file, 1, NULL};
    pthread_mutex_lock(&lock);
    int there = block_at(host) != NULL;
    if (!there) block->next = blocks, blocks = block, used += kind == REGISTERED || kind == OPENED ? 0 : size;
    pthread_mutex_unlock(&lock);
    if (there) free(block);
    return there ? 712 : OK; /* CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED */
}

static int take_block(Address address, int kind) {
    pthread_mutex_lock(&lock);
    Block **at = &blocks, *block = NULL;
    while (*at && !((*at)->kind == kind && (kind == DEVICE || kind == OPENED ? on_device(*at) : (Address)(uintptr_t)(*at)->host) == address)) at = &(*at)->next;
    if (*at && --(*at)->opened) return pthread_mutex_unlock(&lock), OK;
    if (*at) block = *at, *at = block->next, used -= kind == REGISTERED || kind == OPENED ? 0 : block->size;
    pthread_mutex_unlock(&lock);
    if (!block) return kind == REGISTERED ? 713 : INVALID_VALUE;
    if (kind == DEVICE || kind == OPENED) munmap(block->host, block->size);
    if (kind == DEVICE || kind == OPENED) close(block->file);
    if (kind == PINNED) free(block->host);
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
    if (!fits) return OUT_OF_MEMORY;
    int file = -1;
    if (kind == PINNED && posix_memalign(host, 512, size)) return OUT_OF_MEMORY;
    if (kind == DEVICE) {
        file = memfd_create("stub", MFD_CLOEXEC);
        if (file < 0) return OUT_OF_MEMORY;
        *host = ftruncate(file, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (*host == MAP_FAILED) return close(file), OUT_OF_MEMORY;
    }
    memset(*host, 0xcc, size);
    return add_block(*host, size, kind, file);
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
    return !host || !size || flags > 15 ? INVALID_VALUE : add_block(host, size, REGISTERED, -1);
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
    *address = block && block->kind != DEVICE && block->kind != OPENED ? on_device(block) + (Address)((char *)host - block->host) : 0;
    pthread_mutex_unlock(&lock);
    return flags || !*address ? INVALID_VALUE : OK;
}

EXPORT int cuMemGetInfo_v2(size_t *spare, size_t *total) {
    ENTER(1);
    *total = total_memory();
    *spare = *total > used ? *total - used : 0;
    return OK;
}

/* ---- memory of one process in another */

EXPORT int cuIpcGetMemHandle(IpcHandle *handle, Address address) {
    ENTER(1);
    pthread_mutex_lock(&lock);
    Block *block = blocks;
    while (block && !(block->kind == DEVICE && on_device(block) == address)) block = block->next;
    memset(handle, 0, sizeof *handle);
    if (block) handle->shared = (Shared){getpid(), block->file, block->size, block->host};
    pthread_mutex_unlock(&lock);
    return block ? OK : INVALID_VALUE;
}

/* Opened twice, it lies at the same place, and is closed twice. Not in the process that made it. */
EXPORT int cuIpcOpenMemHandle_v2(Address *address, IpcHandle handle, unsigned flags) {
    ENTER(1);
    const Shared *wanted = &handle.shared;
    if (flags != 1 || wanted->owner == getpid()) return flags != 1 ? INVALID_VALUE : INVALID_CONTEXT;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", wanted->owner, wanted->file);
    int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat known, now;
    if (file < 0 || fstat(file, &now)) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Block *block = blocks;
    while (block && !(block->kind == OPENED && !fstat(block->file, &known) && known.st_ino == now.st_ino)) block = block->next;
    if (block) block->opened++;
    pthread_mutex_unlock(&lock);
    if (block) return close(file), *address = on_device(block), OK;
    char *host = mmap(NULL, wanted->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (host == MAP_FAILED) return close(file), OUT_OF_MEMORY;
    *address = (Address)(uintptr_t)host | DEVICE_BIT;
    return add_block(host, wanted->size, OPENED, file);
}

EXPORT int cuIpcCloseMemHandle(Address address) {
    ENTER(1);
    int status = settle_all();
    return status ? status : take_block(address, OPENED);
}
