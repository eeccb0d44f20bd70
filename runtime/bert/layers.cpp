/* The layers of a BERT, on texts of any lengths, in one call.

The code is that of layers.h, compiled for each level of CPU that it knows; the caller chooses one. Weights are bf16 in
panels of PANEL outputs: [panel][input / 2][output within the panel][input % 2], so that one instruction multiplies two
inputs of several outputs. Products are of bf16, as llama.cpp's are with such weights; sums, attention and all else are
f32. Texts see nothing of each other and no padding is computed. */

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
static void rest() { sched_yield(); }
#else
static void rest() {}
#endif

#define ALWAYS static inline __attribute__((always_inline))

typedef uint16_t bf16;

enum {
    TILE = 6,    /* rows of a product that are computed together */
    PANEL = 64,  /* outputs whose weights lie together */
    PART = 16,   /* widths, heads and outputs are multiples of it */
    BLOCK = 96,  /* rows that go through the feed-forward layers at once: what lies between stays in the cache */
    SPINS = 2000 /* before a thread that waits lets others have its core */
};

/* inputs is a multiple of PART, and so is outputs; the last panel is filled up with zeros, and so is the bias. */
struct Linear {
    const bf16 *weight;
    const float *bias;
    int32_t inputs, outputs;
};

struct Norm {
    const float *scale, *shift;
};

struct Layer {
    Linear projection, output, up, down; /* projection: queries, keys and values below one another */
    Norm attended, fed;
};

struct Bert {
    const Layer *layers;
    Norm entry;
    int32_t count, width, heads, inner;
    float epsilon;
};

/* Texts to be read by some threads together, each of which calls with its number. states: (tokens, width), the sums of
the embeddings; the last layer's states replace them. scratch: as many bytes as scratch_bytes says, at a multiple of 64.
stop: ends it between layers where it is not 0. arrived: 0 at first. */
struct Work {
    const int32_t *lengths;
    int32_t texts, tokens, longest, threads;
    float *states;
    uint8_t *scratch;
    const volatile char *stop;
    int32_t *arrived;
};

/* What follows a product: nothing, GELU, or that it is added to what is there. */
enum { PLAIN, GELU, ADD };

ALWAYS long rounded(long count, long to) { return (count + to - 1) / to * to; }

ALWAYS long less(long a, long b) { return a < b ? a : b; }

/* The parts of a work's scratch. A tile is always whole: the rows behind the last one are read, and not used. */
struct Places {
    long half, projected, inner, head, end;

    Places(const Bert *bert, const Work *work) {
        long rows = work->tokens + TILE, width = bert->width, keys = rounded(work->longest, PART);
        half = rounded(rows * width * sizeof(bf16), 64);
        projected = rounded(rows * 3 * width * sizeof(float), 64);
        inner = rounded((BLOCK + TILE) * bert->inner * sizeof(bf16), 64);
        head = rounded((2 * (width / bert->heads) + TILE) * keys * sizeof(float), 64);
        end = half + 2 * projected + work->threads * (inner + head);
    }
};

/* Wait until all threads are here for the count-th time; whether they may go on. Where one thread is behind with a
layer's attention another may be writing the next one's projections, which therefore lie elsewhere. */
static bool met(const Work *work, long count) {
    if (work->threads == 1) return !*work->stop;
    __atomic_add_fetch(work->arrived, 1, __ATOMIC_ACQ_REL);
    for (long spins = 0; __atomic_load_n(work->arrived, __ATOMIC_ACQUIRE) < count * work->threads; spins++) {
        if (*work->stop) return false;
        if (spins >= SPINS) rest();
    }
    return !*work->stop;
}

#define LANES 4
#define STRIP 2
namespace plain {
#include "layers.h"
}
#undef LANES
#undef STRIP

#if defined(__x86_64__)

#define LANES 16
#define STRIP 4
#define PAIRS /* an instruction multiplies pairs of bf16 */
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")
namespace avx512_bf16 {
#include "layers.h"
}
#pragma GCC pop_options

#endif

struct Way {
    const char *name;
    int (*read)(const Bert *, const Work *, int32_t thread);
    bool here; /* whether this CPU has it */
};

static const Way *ways() {
#if defined(__x86_64__)
    static const bool here = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512bf16");
    static const Way all[] = {
        {"avx512_bf16", avx512_bf16::read, here},
        {"plain", plain::read, true},
        {},
    };
#else
    static const Way all[] = {{"plain", plain::read, true}, {}};
#endif
    return all;
}

extern "C" {

/* The name of a way to compute, the fastest first; none behind the last. */
const char *way_name(int32_t way) { return ways()[way].name; }

int way_is_here(int32_t way) { return ways()[way].here; }

long scratch_bytes(const Bert *bert, const Work *work) { return Places(bert, work).end; }

/* 0, or 1 where it was stopped. */
int read_texts(int32_t way, const Bert *bert, const Work *work, int32_t thread) {
    return ways()[way].read(bert, work, thread);
}
}
