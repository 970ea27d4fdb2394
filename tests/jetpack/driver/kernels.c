/* Modules, and kernels in streams. */

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
