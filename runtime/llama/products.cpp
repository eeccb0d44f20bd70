/* Products with quantized weights: the node MUL_MAT, on CPUs with AVX2 or more.

llama.cpp adds up what a row and an output have in common across a vector; here eight or sixteen outputs lie beside
each other, so that with several rows most instructions multiply. A thread unpacks the weights of some outputs and
multiplies them with all rows while they are in its cache; a single row is multiplied with them as they are unpacked.
Products of the same rows are computed together. Rows become bytes as llama.cpp's do for Q8_0, one scale for 32
inputs, whatever the type of the weights. Each result is added up in the same order whatever lies beside it, on each
level of CPU. */

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend.h"

enum {
    LINE = 64,        /* bytes of a cache */
    PAGE = 4096,      /* of memory, whose place a CPU has to look up */
    BLOCK = 32,       /* inputs that share a scale in a row, and in most types of weights */
    STRIP = 2,        /* vectors of outputs beside each other */
    LEAST_CHUNK = 24, /* rows that a panel is unpacked for */
    FEW = 4           /* tasks for each thread: with fewer the rows are divided */
};

/* Of one thread: bytes (inputs / 4, STRIP, lanes, 4), scales and offsets (blocks, STRIP, lanes), and room for a
vector of outputs as they are in the file. */
struct Panel {
    uint8_t *weights;
    float *scales, *offsets;
    uint8_t *spare;
};

/* Weights that come next, which are asked for bit by bit while others are computed with. */
struct Ahead {
    const uint8_t *at, *end;
    long step;
};

ALWAYS void ask_for(const uint8_t *line) { __builtin_prefetch(line, 0, 2); }

/* A part of them. */
ALWAYS void ask(Ahead *ahead) {
    if (ahead->at < ahead->end)
        for (const uint8_t *to = ahead->at + ahead->step; ahead->at < to; ahead->at += LINE) ask_for(ahead->at);
}

struct Kind;

/* Rows as bytes, with the scale of each BLOCK inputs, and for a kind of weights what their sums come to for each of its
blocks: times minus the zero of the weights (as int32), or times the scale (as float) where they have offsets. */
struct Activations {
    const Kind *kind;
    int8_t *values;
    float *scales;
    int32_t *sums;
    long stride, scale_stride, sum_stride;
};

/* A type of weights: so many inputs in so many bytes, `group` outputs side by side; a scale, and where they have them
an offset, for each block of inputs; the number that stands for zero where they have none. */
struct Kind {
    int type;
    bool repacked;
    int inputs, bytes, group, block, zero;
    bool offsets;
    void (*unpack)(const uint8_t *from, long step, long inputs, const Panel *to, int strip);
    void (*multiply)(const Activations *, long first, long last, const Panel *, long inputs, float *to, long stride,
                     long outputs, Ahead *);
    void (*single)(const uint8_t *from, long step, const Activations *, long inputs, float *to, long outputs,
                   Ahead *);
};

/* What is compiled for some CPUs: numbers in a vector, outputs of a panel, rows whose sums stay in registers. */
struct Level {
    const char *name;
    long lanes, side, tile, kind_count;
    const Kind *kinds;
    void (*quantize)(const float *from, const Activations *forms, long count, long row, long block);

    const Kind *find(int type, bool repacked) const {
        for (const Kind *kind = kinds; kind < kinds + kind_count; kind++)
            if (kind->type == type && kind->repacked == repacked) return kind;
        return 0;
    }
};

#if defined(__x86_64__)

ALWAYS float as_float(int32_t bits) {
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

ALWAYS int32_t as_bits(float value) {
    int32_t found;
    memcpy(&found, &value, sizeof found);
    return found;
}

ALWAYS int32_t four_at(const int8_t *at) {
    int32_t found;
    memcpy(&found, at, sizeof found);
    return found;
}

#define NAME "avx2"
#define LANES 8
#define VNNI 0
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,popcnt")
namespace avx2 {
#include "products.h"
}
#pragma GCC pop_options

#if __GNUC__ > 10 || __clang_major__ > 11
#define HAS_AVX_VNNI
#define NAME "avx_vnni"
#define LANES 8
#define VNNI 1
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni,fma,f16c,bmi,popcnt")
namespace avx_vnni {
#include "products.h"
}
#pragma GCC pop_options
#endif

#define NAME "avx512_vnni"
#define LANES 16
#define VNNI 1
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c,bmi,popcnt")
namespace avx512_vnni {
#include "products.h"
}
#pragma GCC pop_options

static const Level *here = 0;

/* Of weights as they are in the file, or repacked: a single row of those is left to llama.cpp, which is as fast. */
static const Kind *kind_of(const Tensor *weights) {
    const Tensor *whole = weights->view_src ? weights->view_src : weights;
    bool repacked = ggml.repacked && whole->buffer && ggml.type_of(whole->buffer) == ggml.repacked;
    return here->find(weights->type, repacked);
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

/* Whether quantize() makes the same of rows for both. */
static bool same_rows(const Kind *one, const Kind *other) {
    return one->block == other->block && one->zero == other->zero && one->offsets == other->offsets;
}

/* Of the rows, of what they come to for weights of another kind, and of what each thread needs: bytes. */
struct Room {
    long values, scales, sums, weights, factors, spare;

    Room(long inputs, long rows)
        : values(rounded(rows * stride_of(inputs), LINE)), scales(rounded(rows * (inputs / BLOCK) * 4, LINE)),
          sums(2 * scales), weights(rounded(inputs * here->side, LINE)),
          factors(rounded(inputs / 16 * here->side * 4, LINE)), spare(rounded(inputs * 2 * here->lanes, LINE)) {}

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

    long panels() const { return rounded(outputs, here->side) / here->side; }
    long end() const { return first + panels() * chunks; }
};

/* Tasks that are still to be done: from `first` up to `last`. */
struct alignas(LINE) Share {
    struct alignas(8) Range {
        uint32_t first, last;
    } left;

    /* The first of them, or the last. */
    bool take(bool from_end, long *number) {
        Range was, then;
        __atomic_load(&left, &was, __ATOMIC_RELAXED);
        do {
            if (was.first >= was.last) return false;
            then = was;
            *number = from_end ? --then.last : then.first++;
        } while (!__atomic_compare_exchange(&left, &was, &then, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return true;
    }
};

/* All of them. Each thread has a share of tasks whose weights follow each other, and helps the others after it. */
struct Work {
    const Context *context;
    const Product *products;
    Share *shares;
    long tasks, inputs, rows, threads;
};

struct Task {
    const Product *of;
    long panel, chunk;
};

/* What one thread does. */
struct Hand {
    const Work *work;
    long thread;
    const Product *at;

    /* False where there are no more. */
    bool take(Task *task) {
        long number, threads = work->threads;
        bool found = work->shares[thread].take(false, &number);
        for (long i = 1; !found && i < threads; i++) found = work->shares[(thread + i) % threads].take(true, &number);
        if (!found) return false;
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

/* A vector of outputs, from that one on; fewer are copied to where there is room for as many. */
static const uint8_t *outputs_at(const Product *of, long output, uint8_t *spare) {
    const uint8_t *first = output_at(of, output);
    long left = of->outputs - output;
    return left >= here->lanes ? first : (const uint8_t *)memcpy(spare, first, left * step_of(of));
}

/* The weights of a panel, which lie beside each other, while others are passed in so many steps. */
static Ahead ahead_of(const Product *of, long panel, long steps) {
    const uint8_t *at = output_at(of, panel * here->side);
    const uint8_t *end = output_at(of, less((panel + 1) * here->side, of->outputs));
    return {at, end, rounded((end - at) / steps, LINE)};
}

static void multiply_row(const Task &task, long inputs, uint8_t *spare, Ahead *ahead) {
    const Product *of = task.of;
    long output = task.panel * here->side, end = less(output + here->side, of->outputs);
    for (; output < end; output += here->lanes)
        of->kind->single(outputs_at(of, output, spare), step_of(of), of->rows, inputs, (float *)of->to->data + output,
                         of->outputs - output, ahead);
}

static void unpack_panel(const Task &task, long inputs, const Panel *to) {
    long output = task.panel * here->side;
    for (int strip = 0; strip < STRIP && output < task.of->outputs; strip++, output += here->lanes)
        task.of->kind->unpack(outputs_at(task.of, output, to->spare), step_of(task.of), inputs, to, strip);
}

/* As many as a thread gets of them. False where they were aborted. */
static bool do_tasks(const Work *work, long thread, const Panel *panel) {
    Hand hand = {work, thread, work->products};
    const Context *context = work->context;
    const bool single = work->rows == 1;
    Task task, next, unpacked = {};
    for (bool more = hand.take(&task); more; task = next) {
        if (context->aborts && context->aborts(context->about)) return false;
        const Product *of = task.of;
        long first = task.chunk * work->rows / of->chunks, last = (task.chunk + 1) * work->rows / of->chunks;
        long blocks = work->inputs / of->kind->block, tiles = rounded(last - first, here->tile) / here->tile;
        const uint8_t *now = output_at(of, task.panel * here->side);
        Ahead ahead = {now, now, 0};
        more = hand.take(&next);
        if (more && (next.of != of || next.panel != task.panel))
            ahead = ahead_of(next.of, next.panel, blocks * tiles);
        if (single) {
            multiply_row(task, work->inputs, panel->spare, &ahead);
            continue;
        }
        if (of != unpacked.of || task.panel != unpacked.panel) unpack_panel(task, work->inputs, panel);
        unpacked = task;
        of->kind->multiply(of->rows, first, last, panel, work->inputs, (float *)of->to->data + task.panel * here->side,
                           of->to->nb[1] / 4, of->outputs - task.panel * here->side, &ahead);
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
    long fixed = LINE + room.values + room.scales + count * room.sums;
    if (!reserve(context, fixed + threads * room.of_thread())) return ALLOC_FAILED;
    char *at = context->memory + LINE; /* a row is read from a little before its first input */
    char *sums = at + room.values + room.scales;
    Activations activations[count];
    Product products[count];
    Share shares[threads];
    Work work = {context, products, shares, 0, inputs, rows, threads};
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
    for (long i = 0; i < threads; i++)
        shares[i].left = {(uint32_t)(i * work.tasks / threads), (uint32_t)((i + 1) * work.tasks / threads)};
    bool aborted = false;
#pragma omp parallel num_threads(threads)
    {
        long thread = omp_get_thread_num(), all = omp_get_num_threads();
        const Panel panel = panel_at(context->memory + fixed + thread * room.of_thread(), room);
        for (long block = thread * rows * blocks / all; block < (thread + 1) * rows * blocks / all; block++)
            here->quantize((const float *)(from->data + block / blocks * from->nb[1]), activations, forms,
                           block / blocks, block % blocks);
#pragma omp barrier
        if (!do_tasks(&work, thread, &panel)) __atomic_store_n(&aborted, true, __ATOMIC_RELAXED);
    }
    return aborted ? ABORTED : SUCCESS;
}

/* Whether sixteen outputs, in the file's layout and as ggml repacks them, are the same weights. */
PUBLIC bool products_agree(int32_t type, const uint8_t *plain, const uint8_t *repacked, int32_t inputs) {
    if (!here) return false;
    const Kind *kinds[2] = {here->find(type, false), here->find(type, true)};
    if (!kinds[0] || !kinds[1]) return false;
    const Room room(inputs, 1);
    char *memory = (char *)aligned_alloc(LINE, 2 * room.of_thread());
    if (!memory) return false;
    memset(memory, 0, 2 * room.of_thread());
    for (int i = 0; i < 2; i++) {
        const Panel panel = panel_at(memory + i * room.of_thread(), room);
        long row = inputs / kinds[i]->inputs * kinds[i]->bytes;
        for (long strip = 0; strip * here->lanes < 16; strip++)
            kinds[i]->unpack((i ? repacked : plain) + strip * here->lanes * row, row, inputs, &panel, strip);
    }
    bool alike = !memcmp(memory, memory + room.of_thread(), room.of_thread());
    free(memory);
    return alike;
}

/* Those that this CPU has, the best first. */
static long levels_here(const Level *found[3]) {
    long count = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        found[count++] = &avx512_vnni::level;
    bool avx2_here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#ifdef HAS_AVX_VNNI
    if (avx2_here && __builtin_cpu_supports("avxvnni")) found[count++] = &avx_vnni::level;
#endif
    if (avx2_here) found[count++] = &avx2::level;
    return count;
}

/* The level of CPU that they are computed for from now on, the named one if this CPU has it, else its best, and none
if it is "off"; "" where there is none. */
PUBLIC const char *products_begin(const char *wanted) {
    const Level *found[3];
    long count = strcmp(wanted, "off") ? levels_here(found) : 0;
    here = count ? found[0] : 0;
    for (long i = 0; i < count; i++)
        if (!strcmp(found[i]->name, wanted)) here = found[i];
    return here ? here->name : "";
}

#else

bool products_compute_this(const Tensor *) { return false; }

int32_t products_compute(Context *, const Tensor *const *, long) { return SUCCESS; }

PUBLIC bool products_agree(int32_t, const uint8_t *, const uint8_t *, int32_t) { return false; }

PUBLIC const char *products_begin(const char *) { return ""; }

#endif
