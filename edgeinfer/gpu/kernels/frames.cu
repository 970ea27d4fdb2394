// What happens to a frame on the GPU before and after the network. Compiled by scripts/kernels for every architecture.
// No headers are included: NVRTC finds none by itself.

// One picture of a batch, as edgeinfer/gpu/kernel_code.py packs it. `pixels` is 0 where the batch has no such picture.
// BGR: three bytes a pixel. YUV 4:2:0, where `u` is not 0: luma, with u and v in planes of half the size; types.py, `Planes`.
struct Picture {
    const unsigned char *pixels, *u, *v;
    int width, height;                      // of the frame
    int pitch, depth;                       // of its rows, in bytes; bytes a sample, of two the value is in the upper bits
    int chroma_pitch, chroma_step;          // in bytes
    int fit_width, fit_height;              // of the picture within the input
    int pad_x, pad_y;                       // where it begins there
    float black, luma;                      // blue = luma * (y - black) + blue_u * (u - 128), and so on
    float blue_u, green_u, green_v, red_v;  // pictures/colour.py, `Coefficients`
    float threshold;                        // of the scores
    int unused;
};

struct Half { unsigned short bits; };

template <typename T> __device__ inline T to(float value);
template <> __device__ inline float to<float>(float value) { return value; }
template <> __device__ inline Half to<Half>(float value) {
    Half half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
    return half;
}

__device__ inline float clamped(float value, float most) { return fminf(fmaxf(value, 0.f), most); }

// The frame's column (or row) that an output pixel lies at: half-pixel centres, as OpenCV's INTER_LINEAR.
__device__ inline float position(int out, int fit, int size) {
    return clamped((out + 0.5f) * size / fit - 0.5f, size - 1.f);
}

// The two samples between which a position lies, and how far along.
struct Between { int first, second; float along; };
__device__ inline Between between(float position, int size) {
    float at = clamped(position, size - 1.f);
    int first = (int)at;
    return {first, min(first + 1, size - 1), at - first};
}

// On the scale of 8 bits.
__device__ inline float sample(const unsigned char* at, int depth) {
    return depth == 2 ? at[1] + at[0] * (1 / 256.f) : at[0];
}

// What a plane holds at a place between four samples. `step` leads from a sample to its right neighbour, in bytes.
__device__ inline float level_at(const unsigned char* plane, Between x, Between y, int pitch, int step, int depth) {
    const unsigned char *upper = plane + (size_t)y.first * pitch, *lower = plane + (size_t)y.second * pitch;
    float a = sample(upper + x.first * step, depth), b = sample(upper + x.second * step, depth);
    float c = sample(lower + x.first * step, depth), d = sample(lower + x.second * step, depth);
    float above = a + (b - a) * x.along, below = c + (d - c) * x.along;
    return above + (below - above) * y.along;
}

// Blue, green and red at a position of a frame, 0 to 255.
__device__ inline float3 bgr_at(const Picture& picture, float at_x, float at_y) {
    Between x = between(at_x, picture.width), y = between(at_y, picture.height);
    const unsigned char* pixels = picture.pixels;
    if (!picture.u)
        return {level_at(pixels, x, y, picture.pitch, 3, 1), level_at(pixels + 1, x, y, picture.pitch, 3, 1),
                level_at(pixels + 2, x, y, picture.pitch, 3, 1)};
    // A chroma sample lies on the left column of its pair, and between its rows.
    Between chroma_x = between(at_x * 0.5f, (picture.width + 1) / 2);
    Between chroma_y = between(at_y * 0.5f - 0.25f, (picture.height + 1) / 2);
    int pitch = picture.chroma_pitch, step = picture.chroma_step, depth = picture.depth;
    float luma = picture.luma * (level_at(pixels, x, y, picture.pitch, depth, depth) - picture.black);
    float u = level_at(picture.u, chroma_x, chroma_y, pitch, step, depth) - 128.f;
    float v = level_at(picture.v, chroma_x, chroma_y, pitch, step, depth) - 128.f;
    return {clamped(luma + picture.blue_u * u, 255.f),
            clamped(luma + picture.green_u * u + picture.green_v * v, 255.f),
            clamped(luma + picture.red_v * v, 255.f)};
}

// Resize, pad, colours, normalisation and planes, in one pass: a thread per pixel of the input.
// out: (N, 3, height, width). An output value is level * scale + bias, per output channel.
template <typename T>
__device__ void letterbox(const Picture* pictures, T* out, int width, int height, float fill, int swap, float3 scale,
                          float3 bias) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    Picture picture = pictures[blockIdx.z];
    float3 level = {fill, fill, fill};
    int inside_x = x - picture.pad_x, inside_y = y - picture.pad_y;
    if (picture.pixels && inside_x >= 0 && inside_y >= 0 && inside_x < picture.fit_width &&
        inside_y < picture.fit_height)
        level = bgr_at(picture, position(inside_x, picture.fit_width, picture.width),
                       position(inside_y, picture.fit_height, picture.height));
    size_t plane = (size_t)width * height;
    T* at = out + 3 * plane * blockIdx.z + (size_t)y * width + x;
    at[0] = to<T>((swap ? level.z : level.x) * scale.x + bias.x);
    at[plane] = to<T>(level.y * scale.y + bias.y);
    at[2 * plane] = to<T>((swap ? level.x : level.z) * scale.z + bias.z);
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
