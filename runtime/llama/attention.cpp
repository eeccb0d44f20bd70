/* Attention over a KV cache of f16: the node FLASH_ATTN_EXT.

Rows that see nearly the same cells form a group, cells that nobody in it sees are passed over at no cost, and the heads
of the queries that share a head of the keys read it together. Groups of one row, as decoding has them, read the cells as
they lie in memory, all heads side by side, and ask for the next ones meanwhile. All is computed in f32. The code is that
of attention.h, compiled for each level of CPU that it knows. */

#include <cmath>

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend.h"

enum {
    STRIP = 4,            /* vectors that are computed together */
    LARGEST_BLOCK = 64,   /* cells */
    ROWS = 64,            /* of a group: its tokens times the heads that share one of the keys */
    PART = 16,            /* the width of a head is a multiple of it */
    WIDEST = 512,         /* head */
    LINE = 64,            /* bytes of a cache */
    DIRECT = 4,           /* rows, for which it does not pay to turn the keys */
    FEW = 4,              /* tasks for each thread: with fewer the cells are divided, too */
    LEAST_CELLS = 32,     /* of a part of the cells that is computed by itself */
    MINUS_INFINITY = 0xfc00 /* as f16 */
};

/* So many heads of the keys, and those of the queries that share each. Steps in bytes. */
struct Heads {
    const char *queries, *keys, *values;
    long count, shared, width;
    long query_step, query_head_step, key_step, key_head_step, value_step, value_head_step;
    float scale;
    const char *mask;
    long mask_step;
    const uint64_t *seen_by_all;
    bool biased;
};

/* Tokens of the batch that are computed together, and how many cells one of them sees or more. */
struct Group {
    int32_t first, rows, cells;
};

/* Of one thread. */
struct Space {
    float *queries, *keys, *values, *scores, *sums, *most, *sum;
    uint64_t *seen_by_all, *seen; /* the latter of a single token */
    int32_t *cells;
};

/* A row of a task: the heads of the keys one after the other, for each the tokens, for each the heads that share it. */
ALWAYS const float *query(const Heads *of, const Group *group, long row) {
    long rows = group->rows * of->shared, token = row % rows / of->shared;
    long head = row / rows * of->shared + row % of->shared;
    return (const float *)(of->queries + (group->first + token) * of->query_step + head * of->query_head_step);
}

ALWAYS float wide(f16 x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, rest = x & 1023;
    if (exponent == 0) {
        float found = (float)rest * 5.9604644775390625e-8f;
        return sign ? -found : found;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | rest << 13;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

/* Scores of cells that a row does not see become minus infinity, and others get what the mask adds. */
static void mask(const Heads *of, const Group *group, const int32_t *cells, long count, long stride, float *scores) {
    long rows = group->rows * of->shared;
    if (count < stride)
        for (long row = 0; row < rows; row++)
            for (long cell = count; cell < stride; cell++) scores[row * stride + cell] = -__builtin_inff();
    if (group->rows == 1 && !of->biased) return;
    bool all = !of->biased;
    for (long cell = 0; all && cell < count; cell++) all = of->seen_by_all[cells[cell] / 64] >> cells[cell] % 64 & 1;
    if (all) return;
    for (long token = 0; token < group->rows; token++) {
        const f16 *adds = (const f16 *)(of->mask + (group->first + token) * of->mask_step);
        for (long cell = 0; cell < count; cell++) {
            f16 added = adds[cells[cell]];
            if (added)
                for (long head = 0; head < of->shared; head++)
                    scores[(token * of->shared + head) * stride + cell] += wide(added);
        }
    }
}

/* Which cells a row of the mask lets through, bit by bit, 64 at most; `other` gets what it adds to one of these. */
ALWAYS uint64_t few_seen(const f16 *row, long count, uint16_t *other) {
    uint64_t bits = 0;
    for (long cell = 0; cell < count; cell++) {
        uint64_t sees = row[cell] != MINUS_INFINITY;
        bits |= sees << cell;
        *other |= sees ? row[cell] : 0;
    }
    return bits;
}

#if defined(__x86_64__)

#define LANES 8
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,popcnt")
namespace avx2 {
#include "attention.h"
}
#pragma GCC pop_options
#undef LANES

#define LANES 16
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,bmi,popcnt")
namespace avx512 {
#include "attention.h"
}
#pragma GCC pop_options
#undef LANES

#endif

struct Level {
    const char *name;
    void (*attend)(const Heads *, const Group *, const int32_t *, long, const Space *);
    int32_t (*read_mask)(const f16 *, long, uint64_t *, bool *);
};

/* The best level of this CPU that is no better than asked for; without functions where there is none. */
static Level level(const char *most) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(most, "off")) return {};
    if (strcmp(most, "avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return {"avx512", avx512::attend, avx512::read_mask};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return {"avx2", avx2::attend, avx2::read_mask};
#endif
    return {};
}

/* What is to be computed, as its threads share it. */
struct Work {
    const Tensor *to;
    long tokens, cells, words, heads, shared, width, most_rows;
    float *partial;
};

/* How. seen: which cells each token sees, in bits, with room for one token more. A task computes a group with so many
heads of the keys together, and one of so many parts of its cells. */
struct Plan {
    uint64_t *seen;
    int32_t *counts;
    Group *groups;
    long group_count, together, parts;
    bool biased;
};

static float parameter(const Tensor *node, int number) {
    float found;
    memcpy(&found, node->params + number, sizeof found);
    return found;
}

/* Tokens that follow one another and see nearly the same, whose heads fill a group. */
static void make_groups(const Work *work, Plan *plan) {
    long most = ROWS / work->shared;
    uint64_t *together = plan->seen + work->tokens * work->words;
    plan->group_count = 0;
    plan->together = work->heads;
    for (long token = 0; token < work->tokens;) {
        Group *group = plan->groups + plan->group_count++;
        group->first = token;
        group->cells = plan->counts[token];
        memcpy(together, plan->seen + token * work->words, work->words * sizeof *together);
        long least = group->cells, end = less(work->tokens, token + (most > 1 ? most : 1));
        for (token++; token < end; token++) {
            const uint64_t *more = plan->seen + token * work->words;
            long both = 0;
            for (long word = 0; word < work->words; word++) both += __builtin_popcountll(together[word] | more[word]);
            if (plan->counts[token] < least) least = plan->counts[token];
            if (both > least + least / 4 + 2 * most) break;
            for (long word = 0; word < work->words; word++) together[word] |= more[word];
            group->cells = both;
        }
        group->rows = token - group->first;
        if (group->rows > 1) plan->together = 1;
    }
}

static Heads heads_of(const Work *work, const Plan *plan, long head, const Space *space) {
    const Tensor *q = work->to->src[0], *k = work->to->src[1], *v = work->to->src[2], *mask = work->to->src[3];
    return {q->data + head * work->shared * q->nb[2],
            k->data + head * k->nb[2],
            v->data + head * v->nb[2],
            plan->together,
            work->shared,
            work->width,
            (long)q->nb[1],
            (long)q->nb[2],
            (long)k->nb[1],
            (long)k->nb[2],
            (long)v->nb[1],
            (long)v->nb[2],
            parameter(work->to, 0),
            mask->data,
            (long)mask->nb[1],
            space->seen_by_all,
            plan->biased};
}

/* The cells that a group sees, in their order. */
static long cells_of(const Work *work, const Plan *plan, const Group *group, const Space *space) {
    long count = 0;
    for (long word = 0; word < work->words; word++) {
        uint64_t some = 0, all = ~(uint64_t)0;
        for (long token = group->first; token < group->first + group->rows; token++) {
            some |= plan->seen[token * work->words + word];
            all &= plan->seen[token * work->words + word];
        }
        space->seen_by_all[word] = all;
        for (; some; some &= some - 1) space->cells[count++] = word * 64 + __builtin_ctzll(some);
    }
    return count;
}

/* As query(), of the heads of the keys from that one on. */
ALWAYS float *result(const Work *work, const Group *group, long first, long row) {
    const Tensor *to = work->to;
    long rows = group->rows * work->shared, token = row % rows / work->shared;
    long head = (first + row / rows) * work->shared + row % work->shared;
    return (float *)(to->data + (group->first + token) * to->nb[2] + head * to->nb[1]);
}

ALWAYS long rows_of(const Work *work, const Plan *plan, const Group *group) {
    return plan->together * group->rows * work->shared;
}

static void finish(const Work *work, const Plan *plan, const Group *group, long first, const Space *space) {
    for (long row = 0; row < rows_of(work, plan, group); row++) {
        float *to = result(work, group, first, row), sum = space->sum[row], by = sum > 0 ? 1 / sum : 0;
        for (long i = 0; i < work->width; i++) to[i] = space->sums[row * work->width + i] * by;
    }
}

/* What a task came to: for each row its largest score, the sum of the weights, and the values. */
ALWAYS float *partial(const Work *work, long task) {
    return work->partial + task * work->most_rows * (work->width + 2);
}

static void keep(const Work *work, const Plan *plan, const Group *group, const Space *space, float *to) {
    for (long row = 0; row < rows_of(work, plan, group); row++, to += work->width + 2) {
        to[0] = space->most[row];
        to[1] = space->sum[row];
        memcpy(to + 2, space->sums + row * work->width, work->width * sizeof(float));
    }
}

/* What the parts of a group's cells came to, `parts` tasks from `task` on. */
static void join(const Work *work, const Plan *plan, const Group *group, long first, long task) {
    for (long row = 0; row < rows_of(work, plan, group); row++) {
        float *to = result(work, group, first, row), most = -__builtin_inff(), sum = 0;
        for (long part = 0; part < plan->parts; part++) {
            const float *from = partial(work, task + part) + row * (work->width + 2);
            if (from[0] > most) most = from[0];
        }
        for (long i = 0; i < work->width; i++) to[i] = 0;
        for (long part = 0; part < plan->parts && most > -__builtin_inff(); part++) {
            const float *from = partial(work, task + part) + row * (work->width + 2);
            float by = expf(from[0] - most);
            sum += by * from[1];
            for (long i = 0; i < work->width; i++) to[i] += by * from[2 + i];
        }
        for (long i = 0; i < work->width && sum > 0; i++) to[i] /= sum;
    }
}

static long thread_bytes(const Work *work) {
    long numbers = 2 * work->most_rows * work->width + 2 * LARGEST_BLOCK * work->width +
                  work->most_rows * (LARGEST_BLOCK + 2) + 64;
    long of_cells = (3 * work->words + 24) * sizeof(uint64_t) + (work->cells + 64) * sizeof(int32_t);
    return rounded(numbers * sizeof(float) + of_cells, 64);
}

static Space space_at(const Work *work, char *at) {
    Space space;
    float *free = (float *)at;
    auto take = [&free](long count) {
        float *taken = free;
        free += rounded(count, PART);
        return taken;
    };
    space.queries = take(work->most_rows * work->width);
    space.sums = take(work->most_rows * work->width);
    space.keys = take(LARGEST_BLOCK * work->width);
    space.values = take(LARGEST_BLOCK * work->width);
    space.scores = take(work->most_rows * LARGEST_BLOCK);
    space.most = take(work->most_rows);
    space.sum = take(work->most_rows);
    space.seen_by_all = (uint64_t *)take(2 * work->words);
    space.seen = (uint64_t *)take(4 * work->words);
    space.cells = (int32_t *)take(work->cells);
    return space;
}

static Work work_of(const Tensor *node) {
    const Tensor *q = node->src[0], *k = node->src[1];
    Work work = {};
    work.to = node;
    work.tokens = q->ne[1];
    work.cells = k->ne[1];
    work.words = rounded(work.cells, 64) / 64;
    work.heads = k->ne[2];
    work.shared = q->ne[2] / k->ne[2];
    work.width = q->ne[0];
    work.most_rows = q->ne[2] > ROWS ? q->ne[2] : ROWS;
    return work;
}

/* The parts of the memory that all threads share, from `at` on; how many bytes. */
static long share(Work *work, Plan *plan, long threads, char *at) {
    char *from = at;
    auto take = [&from](long bytes) {
        char *taken = from;
        from += rounded(bytes, 64);
        return taken;
    };
    plan->seen = (uint64_t *)take((work->tokens + 1) * work->words * sizeof(uint64_t));
    plan->counts = (int32_t *)take(work->tokens * sizeof(int32_t));
    plan->groups = (Group *)take(work->tokens * sizeof(Group));
    long most = threads > 1 ? FEW * threads * threads : 0; /* parts of groups: see parts_of */
    work->partial = (float *)take(most * work->most_rows * (work->width + 2) * sizeof(float));
    return from - at;
}

/* In how many parts the cells of each group are computed, so that all threads have something to do. */
static long parts_of(const Work *work, const Plan *plan, long threads) {
    long tasks = plan->group_count * work->heads / plan->together, most = 1, parts = 1;
    if (tasks >= FEW * threads) return 1;
    for (long group = 0; group < plan->group_count; group++)
        if (plan->groups[group].cells > most) most = plan->groups[group].cells;
    while (tasks * parts % threads) parts++;
    return less(parts, rounded(most, LEAST_CELLS) / LEAST_CELLS);
}

/* The tasks of a plan, the longest first, for as long as there are any. False where they were aborted. */
static bool do_tasks(const Context *context, const Work *work, const Plan *plan, const Level *level, const Space *space,
                     long *taken) {
    long each = work->heads / plan->together * plan->parts, all = plan->group_count * each;
    for (;;) {
        if (context->aborts && context->aborts(context->about)) return false;
        long task = all - 1 - __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
        if (task < 0) return true;
        const Group *group = plan->groups + task / each;
        long first = task % each / plan->parts * plan->together, part = task % plan->parts;
        const Heads of = heads_of(work, plan, first, space);
        long count = cells_of(work, plan, group, space), from = part * count / plan->parts;
        level->attend(&of, group, space->cells + from, (part + 1) * count / plan->parts - from, space);
        if (plan->parts == 1) finish(work, plan, group, first, space);
        else keep(work, plan, group, space, partial(work, task));
    }
}

static void join_tasks(const Work *work, const Plan *plan, long *taken) {
    long each = work->heads / plan->together;
    for (;;) {
        long number = __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
        if (number >= plan->group_count * each) return;
        join(work, plan, plan->groups + number / each, number % each * plan->together, number * plan->parts);
    }
}

static Level level_here;

int32_t attention_compute(Context *context, const Tensor *node) {
    const Level *level = &level_here;
    Work work = work_of(node);
    Plan shared = {};
    long own_bytes = thread_bytes(&work), shared_bytes = share(&work, &shared, context->threads, 0);
    if (!reserve(context, shared_bytes + context->threads * own_bytes)) return ALLOC_FAILED;
    share(&work, &shared, context->threads, context->memory);
    const Tensor *mask = node->src[3];
    long taken = 0, joined = 0;
    bool aborted = false;
#pragma omp parallel num_threads(context->threads)
    {
        long thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const Space space = space_at(&work, context->memory + shared_bytes + thread * own_bytes);
        Group group = {0, 1, 0};
        Plan alone = {space.seen, &group.cells, &group, 1, work.heads, 1, false};
        const Plan *plan = work.tokens > 1 ? &shared : &alone;
        if (work.tokens == 1) { /* each thread for itself, rather than wait for one another */
            group.cells = level->read_mask((const f16 *)mask->data, work.cells, alone.seen, &alone.biased);
            alone.parts = parts_of(&work, &alone, threads);
        } else {
            bool biased = false;
            for (long token = thread; token < work.tokens; token += threads)
                shared.counts[token] = level->read_mask((const f16 *)(mask->data + token * mask->nb[1]), work.cells,
                                                        shared.seen + token * work.words, &biased);
            if (biased) __atomic_store_n(&shared.biased, true, __ATOMIC_RELAXED);
#pragma omp barrier
#pragma omp master
            {
                make_groups(&work, &shared);
                shared.parts = parts_of(&work, &shared, threads);
            }
#pragma omp barrier
        }
        if (!do_tasks(context, &work, plan, level, &space, &taken)) __atomic_store_n(&aborted, true, __ATOMIC_RELAXED);
        if (plan->parts > 1) {
#pragma omp barrier
            join_tasks(&work, plan, &joined);
        }
    }
    return aborted ? ABORTED : SUCCESS;
}

/* Heads in rows of f16 under a mask that all heads share, without sinks, without soft capping, without ALiBi. */
bool attention_computes(const Tensor *node) {
    if (node->op != ggml.attention) return false;
    const Tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    return level_here.attend && mask && !node->src[4] && q->type == F32 && k->type == F16 && v->type == F16 &&
           mask->type == F16 && node->type == F32 && q->ne[0] == v->ne[0] && q->ne[0] % PART == 0 &&
           q->ne[0] <= WIDEST && q->ne[2] % k->ne[2] == 0 && k->ne[2] == v->ne[2] && q->ne[3] == 1 && k->ne[3] == 1 &&
           v->ne[3] == 1 && mask->ne[2] == 1 && mask->ne[3] == 1 && mask->ne[0] >= k->ne[1] &&
           mask->ne[1] >= q->ne[1] && q->nb[0] == 4 && k->nb[0] == 2 && v->nb[0] == 2 && mask->nb[0] == 2 &&
           parameter(node, 1) == 0 && parameter(node, 2) == 0;
}

/* The level of CPU that it is computed for from now on, `most` at most ("" for the best, or "off"); "" where this CPU has none. */
PUBLIC const char *attention_begin(const char *most) {
    level_here = level(most);
    return level_here.name ? level_here.name : "";
}
