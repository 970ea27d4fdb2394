/* Graphs, by capture. */

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
