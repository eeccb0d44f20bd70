/* Products with quantized weights: the node MUL_MAT, on CPUs with AVX512 and VNNI.

llama.cpp adds up what a row and an output have in common across a vector; here sixteen outputs lie beside each other,
so that with several rows eight of eleven instructions multiply. A thread unpacks the weights of 32 outputs and
multiplies them with all rows while they are in its cache; a single row is multiplied with them as they are unpacked.
Products of the same rows are computed together. Rows become bytes as llama.cpp's do for Q8_0, one scale for 32 inputs,
whatever the type of the weights. Each result is added up in the same order whatever lies beside it. */

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend.h"

enum {
    LEAST_CHUNK = 24, /* rows that a panel is unpacked for */
    FEW = 4           /* tasks for each thread: with fewer the rows are divided */
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

/* Of weights in the file's layout, or repacked: a single row of those is left to llama.cpp, which reads them as fast. */
static const Kind *kind_of(const Tensor *weights) {
    const Tensor *whole = weights->view_src ? weights->view_src : weights;
    bool repacked = ggml.repacked && whole->buffer && ggml.type_of(whole->buffer) == ggml.repacked;
    return find_kind(weights->type, repacked);
}

bool products_compute_this(const Tensor *node) {
    if (!here || node->op != ggml.product) return false;
    const Tensor *w = node->src[0], *x = node->src[1];
    const Kind *kind = kind_of(w);
    return kind && x->type == F32 && node->type == F32 && x->ne[1] > (kind->group > 1) && w->ne[2] == 1 &&
           w->ne[3] == 1 && x->ne[2] == 1 && x->ne[3] == 1 && w->ne[0] % kind->inputs == 0 &&
           w->ne[1] % kind->group == 0 &&
           (long)w->nb[1] == w->ne[0] / kind->inputs * kind->bytes && x->nb[0] == 4 && node->nb[0] == 4;
}

/* Of the rows, of what they come to for weights of another kind, and of what each thread needs: bytes. */
struct Room {
    long values, scales, sums, weights, factors, spare;

    Room(long inputs, long rows)
        : values(rounded(rows * stride_of(inputs), LINE)), scales(rounded(rows * (inputs / BLOCK) * 4, LINE)),
          sums(2 * scales), weights(rounded(inputs * SIDE, LINE)), factors(rounded(inputs / 16 * SIDE * 4, LINE)),
          spare(rounded(inputs * 2 * LANES, LINE)) {}

    /* An odd number of lines, so that rows do not fall on the same ones of a cache. */
    static long stride_of(long inputs) { return (rounded(inputs, LINE) / LINE | 1) * LINE; }
    long of_thread() const { return weights + 2 * factors + spare; }
};

static Panel panel_at(char *memory, const Room &room) {
    char *factors = memory + room.weights, *offsets = factors + room.factors;
    return {(uint8_t *)memory, (float *)factors, (float *)offsets, (uint8_t *)offsets + room.factors};
}

/* One of the products of the same rows, whose tasks begin at that number: panels, times parts of the rows. */
struct Product {
    const Tensor *to;
    const Kind *kind;
    const Activations *rows;
    long outputs, chunks, first;

    long panels() const { return rounded(outputs, SIDE) / SIDE; }
    long end() const { return first + panels() * chunks; }
};

/* All of them. Half the tasks are given out beforehand, `own` of them to each thread. */
struct Work {
    const Context *context;
    const Product *products;
    long tasks, inputs, rows, own, given;
    alignas(LINE) long taken; /* of the others */
};

struct Task {
    const Product *of;
    long panel, chunk;
};

/* Those of one thread. */
struct Hand {
    Work *work;
    long next, last;
    const Product *at;

    /* False where there are no more. */
    bool take(Task *task) {
        long number = next < last ? next++ : work->given + __atomic_fetch_add(&work->taken, 1, __ATOMIC_RELAXED);
        if (number >= work->tasks) return false;
        if (number < at->first) at = work->products;
        while (number >= at->end()) at++;
        *task = {at, (number - at->first) / at->chunks, (number - at->first) % at->chunks};
        return true;
    }
};

static const uint8_t *output_at(const Product *of, long output) {
    const Tensor *weights = of->to->src[0];
    return (const uint8_t *)weights->data + output * weights->nb[1];
}

static long step_of(const Product *of) { return of->to->src[0]->nb[1]; }

/* Sixteen outputs, from that one on; fewer are copied to where there is room for sixteen. */
static const uint8_t *sixteen_at(const Product *of, long output, uint8_t *spare) {
    const uint8_t *first = output_at(of, output);
    long left = of->outputs - output;
    return left >= LANES ? first : (const uint8_t *)memcpy(spare, first, left * step_of(of));
}

/* The weights of a panel, which lie beside each other, while others are passed in so many steps. */
static Ahead ahead_of(const Product *of, long panel, long steps) {
    const uint8_t *at = output_at(of, panel * SIDE), *end = output_at(of, less(panel * SIDE + SIDE, of->outputs));
    return {at, end, rounded((end - at) / steps, LINE)};
}

static void multiply_row(const Task &task, long inputs, uint8_t *spare, Ahead *ahead) {
    const Product *of = task.of;
    long output = task.panel * SIDE, end = less(output + SIDE, of->outputs);
    for (; output < end; output += LANES)
        of->kind->single(sixteen_at(of, output, spare), step_of(of), of->rows, inputs, (float *)of->to->data + output,
                         of->outputs - output, ahead);
}

static void unpack_panel(const Task &task, long inputs, const Panel *to) {
    long output = task.panel * SIDE;
    for (int strip = 0; strip < STRIP && output < task.of->outputs; strip++, output += LANES)
        task.of->kind->unpack(sixteen_at(task.of, output, to->spare), step_of(task.of), inputs, to, strip);
}

/* As many as a thread gets of them. False where they were aborted. */
static bool do_tasks(Work *work, long thread, const Panel *panel) {
    Hand hand = {work, thread * work->own, (thread + 1) * work->own, work->products};
    const Context *context = work->context;
    const bool single = work->rows == 1;
    Task task, next, unpacked = {};
    for (bool more = hand.take(&task); more; task = next) {
        if (context->aborts && context->aborts(context->about)) return false;
        const Product *of = task.of;
        long first = task.chunk * work->rows / of->chunks, last = (task.chunk + 1) * work->rows / of->chunks;
        long blocks = work->inputs / of->kind->block, tiles = rounded(last - first, TILE) / TILE;
        Ahead ahead = {};
        more = hand.take(&next);
        if (more && (next.of != of || next.panel != task.panel))
            ahead = ahead_of(next.of, next.panel, single ? work->inputs / of->kind->inputs * STRIP : blocks * tiles);
        if (single) {
            multiply_row(task, work->inputs, panel->spare, &ahead);
            continue;
        }
        if (of != unpacked.of || task.panel != unpacked.panel) unpack_panel(task, work->inputs, panel);
        unpacked = task;
        of->kind->multiply(of->rows, first, last, panel, work->inputs, (float *)of->to->data + task.panel * SIDE,
                           of->to->nb[1] / 4, of->outputs - task.panel * SIDE, &ahead);
    }
    return true;
}

/* Rows are divided where there are few panels. */
static long chunks_of(long panels, long rows, long threads) {
    long wanted = rounded(FEW * threads, panels) / panels, most = rows / LEAST_CHUNK;
    return panels < FEW * threads && threads > 1 && most > 1 ? less(wanted, most) : 1;
}

int32_t products_compute(Context *context, const Tensor *const *nodes, long count) {
    const Tensor *from = nodes[0]->src[1];
    long inputs = from->ne[0], rows = from->ne[1], blocks = inputs / BLOCK, threads = context->threads, forms = 0;
    const Room room(inputs, rows);
    long fixed = room.values + room.scales + count * room.sums;
    if (!reserve(context, fixed + threads * room.of_thread())) return ALLOC_FAILED;
    char *at = context->memory, *sums = at + room.values + room.scales;
    Activations activations[count];
    Product products[count];
    Work work = {context, products, 0, inputs, rows, 0, 0, 0};
    for (long i = 0; i < count; i++) {
        long outputs = nodes[i]->src[0]->ne[1], form = 0;
        const Kind *kind = kind_of(nodes[i]->src[0]);
        while (form < forms && !same_rows(activations[form].kind, kind)) form++;
        if (form == forms)
            activations[forms++] = {kind,
                                    (int8_t *)at,
                                    (float *)(at + room.values),
                                    (int32_t *)(sums + form * room.sums),
                                    Room::stride_of(inputs),
                                    blocks,
                                    inputs / 16};
        products[i] = {nodes[i], kind, activations + form, outputs, 1, work.tasks};
        products[i].chunks = chunks_of(products[i].panels(), rows, threads);
        work.tasks = products[i].end();
    }
    work.own = work.tasks / (2 * threads), work.given = work.own * threads;
    bool aborted = false;
#pragma omp parallel num_threads(threads)
    {
        long thread = omp_get_thread_num(), all = omp_get_num_threads();
        const Panel panel = panel_at(at + fixed + thread * room.of_thread(), room);
        for (long block = thread * rows * blocks / all; block < (thread + 1) * rows * blocks / all; block++)
            quantize((const float *)(from->data + block / blocks * from->nb[1]), activations, forms, block / blocks,
                     block % blocks);
#pragma omp barrier
        if (!do_tasks(&work, thread, &panel)) __atomic_store_n(&aborted, true, __ATOMIC_RELAXED);
    }
    return aborted ? ABORTED : SUCCESS;
}

/* Whether sixteen outputs, in the file's layout and as ggml repacks them, are the same weights. */
PUBLIC bool products_agree(int32_t type, const uint8_t *plain, const uint8_t *repacked, int32_t inputs) {
    const Kind *kinds[2] = {find_kind(type, false), find_kind(type, true)};
    const Room room(inputs, 1);
    if (!here || !kinds[0] || !kinds[1]) return false;
    char *memory = (char *)aligned_alloc(LINE, 2 * room.of_thread());
    if (!memory) return false;
    memset(memory, 0, 2 * room.of_thread());
    for (int i = 0; i < 2; i++) {
        const Panel panel = panel_at(memory + i * room.of_thread(), room);
        long row = inputs / kinds[i]->inputs * kinds[i]->bytes;
        kinds[i]->unpack(i ? repacked : plain, row, inputs, &panel, 0);
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
