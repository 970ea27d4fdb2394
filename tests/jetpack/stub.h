/* What the stub driver offers beside CUDA's own functions: to the stub runtime and to the stub TensorRT. */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t Address; /* CUdeviceptr */

/* Puts a computation into a stream, or into the graph that is being captured from it. It runs when CUDA would have to
   run it at the latest; what it returns is its CUDA status. */
int edgeinfer_stub_enqueue(void *stream, int (*callback)(void *), void *argument);

/* Where `size` bytes at an address of the device lie for the host; NULL where a GPU would say: illegal address. */
void *edgeinfer_stub_translate(Address address, size_t size);

/* A kernel of frames.cu by its name, its launch and its arguments. Returns a CUDA status. */
int edgeinfer_stub_kernel(const char *name, const unsigned *grid, const unsigned *block, void **arguments);

/* The sizes of a kernel's arguments, ended by 0; NULL for a kernel that is not known. */
const int *edgeinfer_stub_arguments(const char *name);
