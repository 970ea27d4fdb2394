// What happens to a frame on the GPU before and after the network. Compiled by scripts/kernels for every architecture.
// No headers are included: NVRTC finds none by itself.

// One picture of a batch, as edgeinfer/gpu/kernel_code.py packs it. `pixels` is 0 where the batch has no such picture.
struct Picture {
    const unsigned char* pixels;  // BGR, 8 bits
    int width, height, pitch;     // of the frame; pitch in bytes
    int fit_width, fit_height;    // of the picture within the input
    int pad_x, pad_y;             // where it begins there
    float threshold;              // of the scores
};

struct Half { unsigned short bits; };

template <typename T> __device__ inline T to(float value);
template <> __device__ inline float to<float>(float value) { return value; }
template <> __device__ inline Half to<Half>(float value) {
    Half half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
    return half;
}

// The two pixels between which an output pixel lies, and how far along: half-pixel centres, as OpenCV's INTER_LINEAR.
__device__ inline float between(int out, int fit, int size, int* first, int* second) {
    float at = fmaxf((out + 0.5f) * size / fit - 0.5f, 0.f);
    *first = min((int)at, size - 1);
    *second = min(*first + 1, size - 1);
    return at - (int)at;
}

// Resize, pad, colour order, normalisation and planes, in one pass: a thread per pixel of the input.
// out: (N, 3, height, width). An output value is level * scale + bias, per output channel.
template <typename T>
__device__ void letterbox(const Picture* pictures, T* out, int width, int height, float fill, int swap, float3 scale,
                          float3 bias) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    Picture picture = pictures[blockIdx.z];
    float level[3] = {fill, fill, fill};
    int inside_x = x - picture.pad_x, inside_y = y - picture.pad_y;
    if (picture.pixels && inside_x >= 0 && inside_y >= 0 && inside_x < picture.fit_width &&
        inside_y < picture.fit_height) {
        int left, right, top, bottom;
        float along_x = between(inside_x, picture.fit_width, picture.width, &left, &right);
        float along_y = between(inside_y, picture.fit_height, picture.height, &top, &bottom);
        const unsigned char* upper = picture.pixels + (size_t)top * picture.pitch;
        const unsigned char* lower = picture.pixels + (size_t)bottom * picture.pitch;
        for (int k = 0; k < 3; k++) {
            float a = upper[left * 3 + k], b = upper[right * 3 + k];
            float c = lower[left * 3 + k], d = lower[right * 3 + k];
            float above = a + (b - a) * along_x, below = c + (d - c) * along_x;
            level[k] = above + (below - above) * along_y;
        }
    }
    size_t plane = (size_t)width * height;
    T* at = out + 3 * plane * blockIdx.z + (size_t)y * width + x;
    at[0] = to<T>(level[swap ? 2 : 0] * scale.x + bias.x);
    at[plane] = to<T>(level[1] * scale.y + bias.y);
    at[2 * plane] = to<T>(level[swap ? 0 : 2] * scale.z + bias.z);
}

extern "C" __global__ void letterbox_float(const Picture* pictures, float* out, int width, int height, float fill,
                                           int swap, float3 scale, float3 bias) {
    letterbox<float>(pictures, out, width, height, fill, swap, scale, bias);
}

extern "C" __global__ void letterbox_half(const Picture* pictures, Half* out, int width, int height, float fill,
                                          int swap, float3 scale, float3 bias) {
    letterbox<Half>(pictures, out, width, height, fill, swap, scale, bias);
}

// A row of the network's outputs whose best class reaches the threshold.
struct Candidate {
    float box[4];
    float score;
    int class_id, row, unused;
};

// boxes: (N, rows, 4), scores: (N, rows, classes). A warp per row; the candidates of a picture come in any order, the
// first `limit` to `first`, the others to `rest`; `counts` must be zero before.
extern "C" __global__ void keep_candidates(const Picture* pictures, const float* boxes, const float* scores, int rows,
                                           int classes, int limit, Candidate* first, Candidate* rest, int* counts) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, picture = blockIdx.z;
    if (row >= rows || !pictures[picture].pixels) return;
    const float* own = scores + ((size_t)picture * rows + row) * classes;
    float best = -1e30f;
    int best_class = 0;
    bool sound = true;
    for (int k = lane; k < classes; k += 32) {
        float score = own[k];
        if (score != score) sound = false;
        if (score > best) { best = score; best_class = k; }
    }
    for (int step = 16; step; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, best, step);
        int other_class = __shfl_xor_sync(0xffffffffu, best_class, step);
        if (other > best || (other == best && other_class < best_class)) { best = other; best_class = other_class; }
    }
    sound = __all_sync(0xffffffffu, sound);
    if (lane || !sound || best < pictures[picture].threshold) return;
    int place = atomicAdd(counts + picture, 1);
    Candidate* at = place < limit ? first + (size_t)picture * limit + place
                                  : rest + (size_t)picture * rows + place - limit;
    const float* box = boxes + ((size_t)picture * rows + row) * 4;
    for (int k = 0; k < 4; k++) at->box[k] = box[k];
    at->score = best;
    at->class_id = best_class;
    at->row = row;
    at->unused = 0;
}
