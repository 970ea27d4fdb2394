/* Streams: what was put into one is done when somebody asks for it. Copies and events. */

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

static int run_copy(Task *task) {
    void *target = edgeinfer_stub_translate((Address)(uintptr_t)task->host, task->size);
    void *source = edgeinfer_stub_translate(task->device, task->size);
    if (!target || !source) return ILLEGAL;
    memmove(target, source, task->size);
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

EXPORT int cuMemcpyDtoDAsync_v2(Address target, Address source, size_t size, void *stream) {
    ENTER(1);
    Task task = {.run = run_copy, .device = source, .host = (void *)(uintptr_t)target, .size = size};
    return put(stream, &task);
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
/* It is waited for at once, which is sooner than the stream would. */
EXPORT int cuStreamWaitEvent(void *stream, void *handle, unsigned flags) { ENTER(1); return happened(handle, 1); }
