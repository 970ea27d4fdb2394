// The CUDA kernels of the product, compiled for the host: the source is included as it is. A warp's 32 threads are
// contexts of their own that change places where the threads of a real one exchange values.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

extern "C" {
#include "stub.h"
}

namespace {
struct Index {
    unsigned x, y, z;
};
Index blockIdx, blockDim, threadIdx;  // of the thread that runs
struct float3 {
    float x, y, z;
};

constexpr int WARP = 32;
constexpr size_t STACK = 16384;

struct Lane {
    ucontext_t start;
    jmp_buf place;
    bool begun, ended;
    int round;
    std::vector<char> stack;
};
struct Warp {
    Lane lanes[WARP];
    ucontext_t caller;
    jmp_buf back;
    uint32_t values[2][WARP];
    int running;
    void (*body)(void**);
    void** arguments;
    unsigned first;
} warp;

// Gives the value to the others, waits until each has given its own.
void exchange(uint32_t value) {
    Lane& lane = warp.lanes[warp.running];
    lane.round ^= 1;
    warp.values[lane.round][warp.running] = value;
    if (!_setjmp(lane.place)) _longjmp(warp.back, 1);
}
uint32_t given(int lane) { return warp.values[warp.lanes[warp.running].round][lane]; }

float __shfl_xor_sync(unsigned, float value, int by) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    exchange(bits);
    bits = given(warp.running ^ by);
    std::memcpy(&value, &bits, 4);
    return value;
}
int __shfl_xor_sync(unsigned, int value, int by) {
    exchange(static_cast<uint32_t>(value));
    return static_cast<int>(given(warp.running ^ by));
}
bool __all_sync(unsigned, bool value) {
    exchange(value);
    for (int lane = 0; lane < WARP; lane++)
        if (!given(lane)) return false;
    return true;
}
int atomicAdd(int* at, int by) {
    int before = *at;
    *at += by;
    return before;
}

// Round to nearest, ties to even, as cvt.rn.f16.f32.
unsigned short half_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    unsigned short sign = bits >> 16 & 0x8000;
    float size = std::fabs(value);
    if (!(size == size)) return sign | 0x7fff;
    if (size >= 65520.f) return sign | 0x7c00;
    int exponent = 0;
    std::frexp(size, &exponent);
    int step = std::max(exponent - 11, -24);  // what the last bit is worth
    long steps = std::lrint(std::ldexp(size, -step));
    if (step == -24) return sign | static_cast<unsigned short>(steps);
    return sign | static_cast<unsigned short>(((exponent + 14) << 10) + (steps - 1024));
}
}  // namespace

using std::min;
#define __device__
#define __global__
#define __restrict__
#define asm(...) half.bits = half_bits(value)
#include FRAMES_CU
#undef asm

namespace {
template <typename T>
T at(void** arguments, int index) {
    T value;
    std::memcpy(&value, arguments[index], sizeof value);
    return value;
}
template <typename T>
T* reach(void** arguments, int index, size_t count) {
    return static_cast<T*>(edgeinfer_stub_translate(at<Address>(arguments, index), count * sizeof(T)));
}

// Makes an address of the device, with so many bytes behind it, one of the host. False: it is out of reach.
bool reached(const unsigned char*& place, size_t size) {
    place = static_cast<const unsigned char*>(edgeinfer_stub_translate(reinterpret_cast<Address>(place), size));
    return place;
}

size_t bytes(int rows, int pitch, int columns, int step, int depth) {
    return static_cast<size_t>(rows - 1) * pitch + static_cast<size_t>(columns - 1) * step + depth;
}

// The pictures as the kernel may read them: with addresses of the host. False: one is out of reach.
bool reachable(void** arguments, unsigned rows, std::vector<Picture>& pictures, bool pixels) {
    const Picture* given = reach<Picture>(arguments, 0, rows);
    if (!given) return false;
    pictures.assign(given, given + rows);
    for (Picture& picture : pictures) {
        if (!picture.pixels || !pixels) continue;
        int width = picture.width, height = picture.height, depth = picture.depth;
        int rows = (height + 1) / 2, columns = (width + 1) / 2;
        size_t chroma = bytes(rows, picture.chroma_pitch, columns, picture.chroma_step, depth);
        if (picture.u ? !reached(picture.pixels, bytes(height, picture.pitch, width, depth, depth)) ||
                            !reached(picture.u, chroma) || !reached(picture.v, chroma)
                      : !reached(picture.pixels, bytes(height, picture.pitch, width, 3, 3)))
            return false;
    }
    return true;
}

template <typename T>
int run_letterbox(const unsigned* grid, const unsigned* block, void** arguments) {
    int width = at<int>(arguments, 2), height = at<int>(arguments, 3);
    std::vector<Picture> pictures;
    T* out = reach<T>(arguments, 1, size_t(3) * width * height * grid[2]);
    if (!out || !reachable(arguments, grid[2], pictures, true)) return 700;
    float fill = at<float>(arguments, 4);
    int swap = at<int>(arguments, 5);
    float3 scale = at<float3>(arguments, 6), bias = at<float3>(arguments, 7);
    blockDim = {1, 1, 1};
    threadIdx = {0, 0, 0};
    unsigned columns = min(grid[0] * block[0], unsigned(width)), lines = min(grid[1] * block[1], unsigned(height));
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < lines; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < columns; blockIdx.x++)
                letterbox<T>(pictures.data(), out, width, height, fill, swap, scale, bias);
    return 0;
}

struct Keeping {
    const Picture* pictures;
    const float *boxes, *scores;
    int rows, classes, limit;
    Candidate *first, *rest;
    int* counts;
} keeping;

void begin() {
    keep_candidates(keeping.pictures, keeping.boxes, keeping.scores, keeping.rows, keeping.classes, keeping.limit,
                    keeping.first, keeping.rest, keeping.counts);
    warp.lanes[warp.running].ended = true;
    _longjmp(warp.back, 1);
}

// Goes on with a lane until it exchanges a value or ends.
void step(int index) {
    Lane& lane = warp.lanes[index];
    warp.running = index;
    threadIdx = {warp.first + index, 0, 0};
    if (_setjmp(warp.back)) return;
    if (lane.begun) _longjmp(lane.place, 1);
    lane.begun = true;
    setcontext(&lane.start);
}

void run_warp(unsigned first) {
    warp.first = first;
    for (Lane& lane : warp.lanes) lane.begun = lane.ended = false, lane.round = 0;
    for (bool some = true; some;) {
        some = false;
        for (int index = 0; index < WARP; index++)
            if (!warp.lanes[index].ended) step(index), some = true;
    }
}

void make_lanes() {
    for (Lane& lane : warp.lanes) {
        lane.stack.resize(STACK);
        getcontext(&lane.start);
        lane.start.uc_stack = {lane.stack.data(), 0, STACK};
        lane.start.uc_link = nullptr;
        makecontext(&lane.start, begin, 0);
    }
}

int run_keep(const unsigned* grid, const unsigned* block, void** arguments) {
    std::vector<Picture> pictures;
    unsigned rows = at<int>(arguments, 3), classes = at<int>(arguments, 4), limit = at<int>(arguments, 5);
    if (!reachable(arguments, grid[2], pictures, false)) return 700;
    unsigned beyond = rows > limit ? rows - limit : 0;
    keeping = {pictures.data(), reach<float>(arguments, 1, size_t(4) * rows * grid[2]),
               reach<float>(arguments, 2, size_t(classes) * rows * grid[2]), int(rows), int(classes), int(limit),
               reach<Candidate>(arguments, 6, size_t(limit) * grid[2]),
               reach<Candidate>(arguments, 7, beyond ? size_t(rows) * (grid[2] - 1) + beyond : 1),
               reach<int>(arguments, 8, grid[2])};
    if (!keeping.boxes || !keeping.scores || !keeping.first || !keeping.rest || !keeping.counts) return 700;
    blockDim = {block[0], 1, 1};
    make_lanes();
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
            for (unsigned first = 0; first < block[0]; first += WARP) run_warp(first);
    return 0;
}

constexpr int LETTERBOX[] = {8, 8, 4, 4, 4, 4, 12, 12, 0}, KEEP[] = {8, 8, 8, 4, 4, 4, 8, 8, 8, 0};
}  // namespace

extern "C" const int* edgeinfer_stub_arguments(const char* name) {
    if (!std::strcmp(name, "keep_candidates")) return KEEP;
    return !std::strcmp(name, "letterbox_float") || !std::strcmp(name, "letterbox_half") ? LETTERBOX : nullptr;
}

extern "C" int edgeinfer_stub_kernel(const char* name, const unsigned* grid, const unsigned* block, void** arguments) {
    static std::mutex one;  // what a thread of the GPU knows of itself is global here
    std::lock_guard<std::mutex> held(one);
    if (!std::strcmp(name, "keep_candidates")) return run_keep(grid, block, arguments);
    return !std::strcmp(name, "letterbox_half") ? run_letterbox<Half>(grid, block, arguments)
                                                : run_letterbox<float>(grid, block, arguments);
}
