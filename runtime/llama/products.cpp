/* Products of several rows with quantized weights: the node MUL_MAT, on CPUs with AVX512 and VNNI.

llama.cpp adds up what a row and an output have in common across a vector; here sixteen outputs lie beside each other,
so that eight of eleven instructions multiply. A thread unpacks the weights of 32 outputs and multiplies them with all
rows while they are in its cache. Rows become bytes as llama.cpp's do for Q8_0, one scale for 32 inputs, whatever the type
of the weights. Each result is added up in the same order whatever lies beside it. */

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend.h"

enum {
    LEAST_ROWS = 2,       /* fewer are left to llama.cpp */
    LEAST_CHUNK = 24,     /* rows that a panel is unpacked for */
    FEW = 4               /* tasks for each thread: with fewer the rows are divided */
};

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c,bmi,popcnt")
namespace avx512_vnni {
#include "products.h"
}
#pragma GCC pop_options

using namespace avx512_vnni;

static bool here = false;

/* Of weights in the file's layout, or repacked. */
static const Kind *kind_of(const Tensor *weights) {
    const Tensor *whole = weights->view_src ? weights->view_src : weights;
    bool repacked = ggml.repacked && whole->buffer && ggml.type_of(whole->buffer) == ggml.repacked;
    return find_kind(weights->type, repacked);
}

bool products_compute_this(const Tensor *node) {
    if (!here || node->op != ggml.product) return false;
    const Tensor *w = node->src[0], *x = node->src[1];
    const Kind *kind = kind_of(w);
    return kind && x->type == F32 && node->type == F32 && x->ne[1] >= LEAST_ROWS && w->ne[2] == 1 && w->ne[3] == 1 &&
           x->ne[2] == 1 && x->ne[3] == 1 && w->ne[0] % kind->inputs == 0 && w->ne[1] % kind->group == 0 &&
           (long)w->nb[1] == w->ne[0] / kind->inputs * kind->bytes && x->nb[0] == 4 && node->nb[0] == 4;
}

struct Product {
    const Tensor *to;
    const Kind *kind;
    long outputs, panels, chunks, taken;
};

/* Of the rows, and of what each thread needs: bytes. */
struct Room {
    long values, scales, sums, weights, factors;

    Room(long inputs, long rows)
        : values(rounded(rows * stride_of(inputs), LINE)), scales(rounded(rows * (inputs / BLOCK) * 4, LINE)),
          sums(2 * scales), weights(rounded(inputs * SIDE, LINE)), factors(rounded(inputs / 16 * SIDE * 4, LINE)) {}

    /* An odd number of lines, so that rows do not fall on the same ones of a cache. */
    static long stride_of(long inputs) { return (rounded(inputs, LINE) / LINE | 1) * LINE; }
    long of_all() const { return values + scales + sums; }
    long of_thread() const { return weights + 2 * factors; }
};

static const uint8_t *output_at(const Product *of, long output) {
    const Tensor *weights = of->to->src[0];
    long group = of->kind->group, last = of->outputs - group;
    return (const uint8_t *)weights->data + less(output, last) / group * group * weights->nb[1];
}

static void unpack(const Product *of, long inputs, long panel, const Panel *to) {
    for (long strip = 0; strip < STRIP; strip++) {
        const uint8_t *from[LANES];
        for (long i = 0; i < LANES / of->kind->group; i++)
            from[i] = output_at(of, panel * SIDE + strip * LANES + i * of->kind->group);
        of->kind->unpack(from, inputs, to, strip);
    }
}

ALWAYS long take_task(Product *of) {
    long task = __atomic_fetch_add(&of->taken, 1, __ATOMIC_RELAXED);
    return task < of->panels * of->chunks ? task : -1;
}

/* The weights of a panel, which lie beside each other, while so many rows are computed with others. */
static Ahead ahead_of(const Product *of, long panel, long inputs, long rows) {
    const uint8_t *at = output_at(of, panel * SIDE), *end = output_at(of, panel * SIDE + SIDE);
    return {at, end, rounded((end - at) / (inputs / of->kind->block * rounded(rows, TILE) / TILE), LINE)};
}

/* The panels of a product, for as long as there are any. False where it was aborted. */
static bool do_tasks(const Context *context, Product *of, const Activations *rows, long inputs, long count,
                     const Panel *panel) {
    for (long task = take_task(of), unpacked = -1; task >= 0;) {
        if (context->aborts && context->aborts(context->about)) return false;
        long number = task / of->chunks, chunk = task % of->chunks, next = take_task(of);
        if (number != unpacked) unpack(of, inputs, number, panel);
        unpacked = number;
        long first = chunk * count / of->chunks, last = (chunk + 1) * count / of->chunks;
        Ahead ahead = {};
        if (next >= 0 && next / of->chunks != number) ahead = ahead_of(of, next / of->chunks, inputs, last - first);
        of->kind->multiply(rows, first, last, panel, inputs, (float *)of->to->data + number * SIDE,
                           of->to->nb[1] / 4, of->outputs - number * SIDE, &ahead);
        task = next;
    }
    return true;
}

static Product product_of(const Tensor *node, long rows, long threads) {
    Product found = {node, kind_of(node->src[0]), node->src[0]->ne[1], 0, 1, 0};
    found.panels = rounded(found.outputs, SIDE) / SIDE;
    if (found.panels < FEW * threads) {
        long wanted = rounded(FEW * threads, found.panels) / found.panels, most = rows / LEAST_CHUNK;
        found.chunks = threads > 1 && most > 1 ? less(wanted, most) : 1;
    }
    return found;
}

int32_t products_compute(Context *context, const Tensor *const *nodes, long count) {
    const Tensor *from = nodes[0]->src[1];
    long inputs = from->ne[0], rows = from->ne[1];
    const Room room(inputs, rows);
    if (!reserve(context, room.of_all() + context->threads * room.of_thread())) return ALLOC_FAILED;
    char *at = context->memory;
    const Activations shared = {(int8_t *)at, (float *)(at + room.values), (int32_t *)(at + room.values + room.scales),
                                Room::stride_of(inputs), inputs / BLOCK, inputs / 16};
    Product products[count];
    for (long i = 0; i < count; i++) products[i] = product_of(nodes[i], rows, context->threads);
    bool aborted = false;
#pragma omp parallel num_threads(context->threads)
    {
        long thread = omp_get_thread_num(), threads = omp_get_num_threads();
        uint8_t *own = (uint8_t *)at + room.of_all() + thread * room.of_thread();
        const Panel panel = {own, (float *)(own + room.weights), (float *)(own + room.weights + room.factors)};
        for (long i = 0; i < count; i++) {
            const Kind *kind = products[i].kind;
            if (i == 0 || !same_rows(kind, products[i - 1].kind)) {
                if (i) {
#pragma omp barrier
                }
                for (long row = thread; row < rows; row += threads)
                    quantize((const float *)(from->data + row * from->nb[1]), inputs, kind, &shared, row);
#pragma omp barrier
            }
            if (!do_tasks(context, products + i, &shared, inputs, rows, &panel))
                __atomic_store_n(&aborted, true, __ATOMIC_RELAXED);
        }
    }
    return aborted ? ABORTED : SUCCESS;
}

/* Whether sixteen outputs, in the file's layout and as ggml repacks them, are the same weights. */
PUBLIC bool products_agree(int32_t type, const uint8_t *plain, const uint8_t *repacked, int32_t inputs) {
    const Kind *kinds[2] = {find_kind(type, false), find_kind(type, true)};
    const Room room(inputs, 1);
    if (!here || !kinds[0] || !kinds[1]) return false;
    uint8_t *memory = (uint8_t *)aligned_alloc(LINE, 2 * room.of_thread());
    if (!memory) return false;
    memset(memory, 0, 2 * room.of_thread());
    for (int i = 0; i < 2; i++) {
        const uint8_t *from[LANES], *data = i ? repacked : plain;
        uint8_t *own = memory + i * room.of_thread();
        const Panel panel = {own, (float *)(own + room.weights), (float *)(own + room.weights + room.factors)};
        long row = inputs / kinds[i]->inputs * kinds[i]->bytes;
        for (long n = 0; n < LANES / kinds[i]->group; n++) from[n] = data + n * kinds[i]->group * row;
        kinds[i]->unpack(from, inputs, &panel, 0);
    }
    bool alike = !memcmp(memory, memory + room.of_thread(), room.of_thread());
    free(memory);
    return alike;
}

/* The level of CPU that they are computed for from now on, unless `most` is "off"; "" where this CPU has none. */
PUBLIC const char *products_begin(const char *most) {
    __builtin_cpu_init();
    here = strcmp(most, "off") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
    return here ? "avx512_vnni" : "";
}

#else

bool products_compute_this(const Tensor *) { return false; }

int32_t products_compute(Context *, const Tensor *const *, long) { return SUCCESS; }

PUBLIC bool products_agree(int32_t, const uint8_t *, const uint8_t *, int32_t) { return false; }

PUBLIC const char *products_begin(const char *) { return ""; }

#endif
