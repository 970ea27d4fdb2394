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

#include "driver/settings.c"
#include "driver/device.c"
#include "driver/memory.c"
#include "driver/streams.c"
#include "driver/graphs.c"
#include "driver/kernels.c"

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

/* The runtime inside NVIDIA's own cuda-bindings is linked statically. It looks for some 900 functions above, most of
   which are not here; then it asks for tables that no public header describes. What was seen of it with this stub:

   bindings 13.4.4 on a driver of 12060, bindings 12.9.10 on one of 11040: error 35 (cudaErrorInsufficientDriver) from
   every call but cudaRuntimeGetVersion and cudaDriverGetVersion, as on a real driver of an older major version.
   Bindings 12.9.10 on 12060 or 13000, bindings 13.4.4 on 13000: the version is accepted, and every call is error 500
   (cudaErrorSymbolNotFound) once a table is refused here. With an empty table they ask for two more, call into one of
   them and crash. So the tables are refused, nothing of them is imitated, and the product runs on the stub of
   libcudart instead. The other half of the bindings, cuda.bindings.driver, works on the stub: contexts, memory,
   streams, copies, events, modules. */
EXPORT int cuGetExportTable(const void **table, const unsigned char *uuid) {
    (void)uuid;
    *table = NULL;
    return NOT_FOUND;
}
