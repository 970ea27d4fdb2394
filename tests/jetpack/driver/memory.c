/* Memory of the device and memory that it reaches. */

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
