/* One level of CPU: LANES floats are computed at once. Included by attention.cpp within a namespace. */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { CELLS = STRIP * LANES }; /* whose scores are computed at once */

ALWAYS floats load(const float *from) { return *(const floats *)from; }

ALWAYS void store(float *to, floats x) { *(floats *)to = x; }

ALWAYS floats same(float x) { return x - (floats){}; }

ALWAYS floats halves(const f16 *from) {
#if LANES == 16
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#else
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#endif
}

/* 32 cells of a mask as bits. */
ALWAYS uint64_t seen_here(const f16 *row, __m256i *other) {
    __m256i first = _mm256_loadu_si256((const __m256i *)row), second = _mm256_loadu_si256((const __m256i *)(row + 16));
    __m256i gone = _mm256_set1_epi16((int16_t)MINUS_INFINITY);
    __m256i without = _mm256_cmpeq_epi16(first, gone), also = _mm256_cmpeq_epi16(second, gone);
    *other = _mm256_or_si256(*other, _mm256_andnot_si256(without, first));
    *other = _mm256_or_si256(*other, _mm256_andnot_si256(also, second));
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(without, also), 0xd8);
    return (uint32_t)~_mm256_movemask_epi8(both);
}

/* Which cells a row of the mask lets through; how many. biased: set where it adds something to one of them. */
static int32_t read_mask(const f16 *row, long cells, uint64_t *seen, bool *biased) {
    int32_t count = 0;
    uint16_t rest = 0;
    __m256i other = _mm256_setzero_si256();
    for (long cell = 0; cell < cells; cell += 64) {
        uint64_t bits = cell + 64 <= cells ? seen_here(row + cell, &other) | seen_here(row + cell + 32, &other) << 32
                                           : few_seen(row + cell, cells - cell, &rest);
        seen[cell / 64] = bits;
        count += __builtin_popcountll(bits);
    }
    if (rest || !_mm256_testz_si256(other, other)) *biased = true;
    return count;
}

ALWAYS float largest(floats x) {
    float found = x[0];
    for (int lane = 1; lane < LANES; lane++) found = x[lane] > found ? x[lane] : found;
    return found;
}

ALWAYS float total(floats x) {
    float found = 0;
    for (int lane = 0; lane < LANES; lane++) found += x[lane];
    return found;
}

/* e to the power of x, which is at most 0: as 2 to its whole part times a polynomial (the coefficients are Cephes'
expf). Nothing is left of what lies below -87. */
ALWAYS floats raised(floats x) {
    ints gone = x < -87.0f;
    x = gone ? same(-87.0f) : x;
    floats whole = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats found = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    found = found * rest + 8.3334519073e-3f;
    found = found * rest + 4.1665795894e-2f;
    found = found * rest + 1.6666665459e-1f;
    found = found * rest + 5.0000001201e-1f;
    found = found * (rest * rest) + rest + 1.0f;
    ints power = (__builtin_convertvector(whole, ints) + 127) << 23;
    found *= (floats)power;
    return gone ? floats{} : found;
}

/* The sums of so many vectors, each in its place. */
ALWAYS floats sums_of(floats rows[LANES]) {
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        ints first, second;
#pragma GCC unroll 16
        for (int lane = 0; lane < LANES; lane++) {
            first[lane] = lane & step ? LANES + lane - step : lane;
            second[lane] = lane & step ? LANES + lane : lane + step;
        }
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row += 2 * step)
            rows[row] = __builtin_shuffle(rows[row], rows[row + step], first) +
                        __builtin_shuffle(rows[row], rows[row + step], second);
    }
    return rows[0];
}

/* Rows to columns, in place. */
ALWAYS void turn(floats rows[LANES]) {
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        ints first, second;
#pragma GCC unroll 16
        for (int lane = 0; lane < LANES; lane++) {
            first[lane] = lane & step ? LANES + lane - step : lane;
            second[lane] = lane & step ? LANES + lane : lane + step;
        }
#pragma GCC unroll 16
        for (int row = 0; row < LANES; row++)
            if (!(row & step)) {
                floats a = rows[row], b = rows[row + step];
                rows[row] = __builtin_shuffle(a, b, first);
                rows[row + step] = __builtin_shuffle(a, b, second);
            }
    }
}

/* Cells that are read next: all heads of each, `each` lines for every cell that is computed. */
struct Ahead {
    const char *from;
    long step, bytes, each;
    const int32_t *cells;
    long count, at;
};

/* Some lines on their way into the second cache: the first is smaller than a block of all heads. */
ALWAYS void fetch(Ahead *ahead) {
    for (long line = 0; line < ahead->each && ahead->count; line++) {
        __builtin_prefetch(ahead->from + *ahead->cells * ahead->step + ahead->at, 0, 2);
        ahead->at += LINE;
        if (ahead->at < ahead->bytes) continue;
        ahead->at = 0;
        ahead->cells++;
        ahead->count--;
    }
}

/* A block of keys as columns, (width, CELLS); the last cell stands for those that the block lacks. */
ALWAYS void columns(const Heads *of, const int32_t *cells, long count, Ahead *next, float *to) {
    Ahead ahead = *next;
    for (long strip = 0; strip < CELLS && strip < count; strip += LANES)
        for (long i = 0; i < of->width; i += LANES) {
            floats rows[LANES];
#pragma GCC unroll 16
            for (long lane = 0; lane < LANES; lane++) {
                rows[lane] = halves((const f16 *)(of->keys + cells[less(strip + lane, count - 1)] * of->key_step) + i);
                if (!i) fetch(&ahead);
            }
            turn(rows);
#pragma GCC unroll 16
            for (long lane = 0; lane < LANES; lane++) store(to + (i + lane) * CELLS + strip, rows[lane]);
        }
    *next = ahead;
}

/* Some queries times a block of keys. */
template <int ROWS>
ALWAYS void product(const float *queries, long width, const float *keys, float *to) {
    floats sums[ROWS][STRIP] = {};
    for (long i = 0; i < width; i++) {
        floats column[STRIP];
#pragma GCC unroll 4
        for (int strip = 0; strip < STRIP; strip++) column[strip] = load(keys + i * CELLS + strip * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 4
            for (int strip = 0; strip < STRIP; strip++) sums[row][strip] += queries[row * width + i] * column[strip];
    }
    for (int row = 0; row < ROWS; row++)
        for (int strip = 0; strip < STRIP; strip++) store(to + row * CELLS + strip * LANES, sums[row][strip]);
}

/* The same for so few queries that it does not pay to turn the keys. */
template <int ROWS>
static void direct(const Heads *of, const float *queries, const int32_t *cells, long count, Ahead *next, float *to) {
    Ahead ahead = *next;
    for (long strip = 0; strip < CELLS && strip < count; strip += LANES) {
        floats products[ROWS][LANES];
#pragma GCC unroll 16
        for (long lane = 0; lane < LANES; lane++) {
            const f16 *key = (const f16 *)(of->keys + cells[less(strip + lane, count - 1)] * of->key_step);
            floats product[ROWS] = {};
            fetch(&ahead);
            for (long i = 0; i < of->width; i += LANES) {
                floats keys = halves(key + i);
#pragma GCC unroll 6
                for (int row = 0; row < ROWS; row++) product[row] += load(queries + row * of->width + i) * keys;
            }
            for (int row = 0; row < ROWS; row++) products[row][lane] = product[row];
        }
        for (int row = 0; row < ROWS; row++) store(to + row * CELLS + strip, sums_of(products[row]));
    }
    *next = ahead;
}

/* Add some rows' share of a block of values, PLACES vectors of each. values: as f32, or the cells' own. */
template <int ROWS, int PLACES>
ALWAYS void take(const Heads *of, const float *weights, const float *values, const int32_t *cells, long count, long at,
                 Ahead *next, float *sums) {
    Ahead ahead = *next;
    floats taken[ROWS][PLACES];
    for (int row = 0; row < ROWS; row++)
        for (int place = 0; place < PLACES; place++) taken[row][place] = load(sums + row * of->width + place * LANES);
    for (long cell = 0; cell < count; cell++) {
        floats value[PLACES];
        fetch(&ahead);
        const f16 *half = (const f16 *)(of->values + cells[cell] * of->value_step) + at;
#pragma GCC unroll 4
        for (int place = 0; place < PLACES; place++)
            value[place] = values ? load(values + cell * of->width + place * LANES) : halves(half + place * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 4
            for (int place = 0; place < PLACES; place++) taken[row][place] += weights[row * CELLS + cell] * value[place];
    }
    for (int row = 0; row < ROWS; row++)
        for (int place = 0; place < PLACES; place++) store(sums + row * of->width + place * LANES, taken[row][place]);
    *next = ahead;
}

template <int ROWS>
static void take_all(const Heads *of, const float *weights, const float *values, const int32_t *cells, long count,
                     Ahead *next, float *sums) {
    long at = 0;
    for (; at + STRIP * LANES <= of->width; at += STRIP * LANES)
        take<ROWS, STRIP>(of, weights, values ? values + at : 0, cells, count, at, next, sums + at);
    for (; at < of->width; at += LANES)
        take<ROWS, 1>(of, weights, values ? values + at : 0, cells, count, at, next, sums + at);
}

/* What of a block is computed for so many rows, TILE at most. */
template <int ROWS>
static void product_of(const float *queries, long width, const float *keys, float *to) {
    product<ROWS>(queries, width, keys, to);
}

#if LANES == 16
#define FOR_ROWS(rows, work, ...)              \
    switch (rows) {                            \
    case 1: work<1>(__VA_ARGS__); break;       \
    case 2: work<2>(__VA_ARGS__); break;       \
    case 3: work<3>(__VA_ARGS__); break;       \
    case 4: work<4>(__VA_ARGS__); break;       \
    case 5: work<5>(__VA_ARGS__); break;       \
    default: work<6>(__VA_ARGS__);             \
    }
enum { TILE = 6 };
#else
#define FOR_ROWS(rows, work, ...)              \
    switch (rows) {                            \
    case 1: work<1>(__VA_ARGS__); break;       \
    default: work<2>(__VA_ARGS__);             \
    }
enum { TILE = 2 };
#endif

/* Scores into weights, but for the division by their sum: what came before is made to fit the new largest. */
ALWAYS void weigh(float *scores, long width, float *most, float *sum, float *sums) {
    floats top = load(scores);
#pragma GCC unroll 4
    for (long cell = LANES; cell < CELLS; cell += LANES) {
        floats x = load(scores + cell);
        top = x > top ? x : top;
    }
    float found = largest(top), before = *most;
    if (found > before) {
        *most = found;
        float factor = before == -__builtin_inff() ? 0 : __builtin_expf(before - found);
        *sum *= factor;
        for (long i = 0; i < width; i += LANES) store(sums + i, load(sums + i) * factor);
    } else if (before == -__builtin_inff()) {
        for (long cell = 0; cell < CELLS; cell += LANES) store(scores + cell, floats{});
        return;
    }
    floats all = {};
#pragma GCC unroll 4
    for (long cell = 0; cell < CELLS; cell += LANES) {
        floats x = raised(load(scores + cell) - *most);
        store(scores + cell, x);
        all += x;
    }
    *sum += total(all);
}

/* How many rows are computed at once, so that they are about as many each time: TILE at most. */
ALWAYS long tile(long rows) {
    long times = (rows + TILE - 1) / TILE;
    return (rows + times - 1) / times;
}

/* Scores of a block of cells, for the rows of one head of the keys. */
ALWAYS void score(const Heads *of, const float *queries, long rows, const int32_t *cells, long count, Ahead *next,
                  const Space *space, float *to) {
    long each = tile(rows), width = of->width;
    if (rows > DIRECT) columns(of, cells, count, next, space->keys);
    for (long row = 0; row < rows; row += each) {
        long here = less(rows - row, each);
        if (rows > DIRECT) FOR_ROWS(here, product_of, queries + row * width, width, space->keys, to + row * CELLS)
        else FOR_ROWS(here, direct, of, queries + row * width, cells, count, next, to + row * CELLS)
    }
}

/* Add what these rows take of a block of values. */
ALWAYS void gather(const Heads *of, const float *weights, long rows, const int32_t *cells, long count, Ahead *next,
                   const Space *space, float *sums) {
    long each = tile(rows), width = of->width;
    float *values = rows > 2 * TILE ? space->values : 0;
    for (long cell = 0; values && cell < count; cell++) {
        fetch(next);
        for (long i = 0; i < width; i += LANES)
            store(values + cell * width + i, halves((const f16 *)(of->values + cells[cell] * of->value_step) + i));
    }
    for (long row = 0; row < rows; row += each)
        FOR_ROWS(less(rows - row, each), take_all, of, weights + row * CELLS, values, cells, count, next,
                 sums + row * width)
}

/* What the rows of a group take of some cells, for some heads of the keys and the heads of the queries that share them:
all heads of a block of cells before the next block, which meanwhile is on its way from memory. */
static void attend(const Heads *all, const Group *group, const int32_t *cells, long count, const Space *space) {
    long width = all->width, rows = group->rows * all->shared;
    for (long row = 0; row < all->count * rows; row++) {
        const float *from = query(all, group, row);
        space->most[row] = -__builtin_inff();
        space->sum[row] = 0;
        for (long i = 0; i < width; i += LANES) {
            store(space->queries + row * width + i, load(from + i) * all->scale);
            store(space->sums + row * width + i, floats{});
        }
    }
    long key_bytes = (all->count - 1) * all->key_head_step + width * sizeof(f16);
    long value_bytes = (all->count - 1) * all->value_head_step + width * sizeof(f16);
    /* those of a single head lie apart, and are many rows' */
    long each = all->count > 1 ? rounded(key_bytes, LINE * all->count) / (LINE * all->count) : 0;
    for (Heads of = *all; count > 0; count -= CELLS, cells += CELLS) {
        long here = less(count, CELLS), later = less(count - here, CELLS);
        Ahead values = {all->values, of.value_step, value_bytes, each, cells, here, 0};
        Ahead keys = {all->keys, of.key_step, key_bytes, each, cells + here, later, 0};
        for (long head = 0; head < of.count; head++) {
            float *scores = space->scores + head * rows * CELLS;
            of.keys = all->keys + head * of.key_head_step;
            score(&of, space->queries + head * rows * width, rows, cells, here, &values, space, scores);
            mask(&of, group, cells, here, CELLS, scores);
            for (long row = head * rows; row < (head + 1) * rows; row++)
                weigh(space->scores + row * CELLS, width, space->most + row, space->sum + row,
                      space->sums + row * width);
        }
        for (long head = 0; head < of.count; head++) {
            of.values = all->values + head * of.value_head_step;
            gather(&of, space->scores + head * rows * CELLS, rows, cells, here, &keys, space,
                   space->sums + head * rows * width);
        }
    }
}

#undef FOR_ROWS
