/* The layers at one level of CPU: included once for each by layers.cpp, in a namespace of its own. LANES: floats of a
vector; STRIP: vectors beside each other, so that the sums of a tile stay in registers. */

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

enum { COLUMNS = STRIP * LANES };

ALWAYS floats load(const float *from) { return *(const floats *)from; }

ALWAYS void store(float *to, floats x) { *(floats *)to = x; }

ALWAYS floats same(float x) { return x - floats{}; }

/* e to the x, within 2 units in the last place; an x below -87 is taken for -87. */
ALWAYS floats raised(floats x) {
    const floats lowest = same(-87.0f), highest = same(88.0f), shift = same(12582912.0f); /* 1.5 * 2^23: it rounds */
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    floats whole = x * 1.44269504f + shift;
    ints power = ((ints)whole - (ints)shift) << 23;
    whole -= shift;
    floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* the logarithm of 2 in two parts */
    floats sum = same(1.9875691500e-4f);
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    return (floats)((ints)sum + power);
}

/* In the form with tanh, which is llama.cpp's. */
ALWAYS floats gelu(floats x) { return x / (raised(x * (x * x * 0.044715f + 1.0f) * -1.5957691216f) + 1.0f); }

/* To the nearest, ties to even. */
ALWAYS void to_bf16(bf16 *to, floats x) {
    ints bits = (ints)x;
    bits += ((bits >> 16) & 1) + 0x7fff;
    *(halves *)to = __builtin_convertvector(bits >> 16, halves);
}

ALWAYS float total(floats x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

ALWAYS float wide(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

/* sums += TILE rows of a, times COLUMNS of a panel. */
ALWAYS void product(floats sums[TILE][STRIP], const bf16 *a, long stride, const bf16 *b, long inputs) {
    for (long input = 0; input < inputs; input += 2, b += 2 * PANEL) {
#ifdef PAIRS
        __m512bh weights[STRIP];
#pragma GCC unroll 4
        for (int place = 0; place < STRIP; place++)
            weights[place] = (__m512bh)_mm512_loadu_si512(b + place * 2 * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < TILE; row++) {
            int32_t pair;
            memcpy(&pair, a + row * stride + input, sizeof pair);
            __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int place = 0; place < STRIP; place++)
                sums[row][place] = (floats)_mm512_dpbf16_ps((__m512)sums[row][place], both, weights[place]);
        }
#else
        floats even[STRIP], odd[STRIP];
#pragma GCC unroll 4
        for (int place = 0; place < STRIP; place++) {
            ints pairs = *(const ints *)(b + place * 2 * LANES);
            even[place] = (floats)(pairs << 16);
            odd[place] = (floats)(pairs & (int32_t)0xffff0000);
        }
#pragma GCC unroll 6
        for (int row = 0; row < TILE; row++) {
            floats first = same(wide(a[row * stride + input])), second = same(wide(a[row * stride + input + 1]));
#pragma GCC unroll 4
            for (int place = 0; place < STRIP; place++) {
                sums[row][place] += first * even[place];
                sums[row][place] += second * odd[place];
            }
        }
#endif
    }
}

/* What becomes of a tile: of its rows that are rows, and its columns that are outputs. */
ALWAYS void finish(floats sums[TILE][STRIP], long rows, long columns, long stride, int then, float *to, bf16 *half) {
    for (long row = 0; row < rows; row++)
        for (long column = 0; column < columns; column += LANES) {
            floats x = sums[row][column / LANES];
            long at = row * stride + column;
            if (then == GELU) to_bf16(half + at, gelu(x));
            else if (then == ADD) store(to + at, load(to + at) + x);
            else store(to + at, x);
        }
}

/* The rows of a, times the weights, plus the bias: to `to` (f32), or through GELU to half. */
ALWAYS void linear(const Linear *by, const bf16 *a, long rows, int then, float *to, bf16 *half) {
    for (long output = 0; output < by->outputs; output += COLUMNS) {
        const bf16 *weights = by->weight + output / PANEL * PANEL * by->inputs + output % PANEL * 2;
        floats bias[STRIP];
        for (int place = 0; place < STRIP; place++) bias[place] = load(by->bias + output + place * LANES);
        for (long row = 0; row < rows; row += TILE) {
            floats sums[TILE][STRIP];
#pragma GCC unroll 6
            for (int r = 0; r < TILE; r++)
#pragma GCC unroll 4
                for (int place = 0; place < STRIP; place++) sums[r][place] = bias[place];
            product(sums, a + row * by->inputs, by->inputs, weights, by->inputs);
            long at = row * by->outputs + output;
            long columns = less(by->outputs - output, COLUMNS);
            finish(sums, less(rows - row, TILE), columns, by->outputs, then, to + at, half + at);
        }
    }
}

/* Each row to mean 0 and variance 1, scaled and shifted; also as bf16. */
static void normalize(const Norm *by, float epsilon, float *x, bf16 *half, long rows, long width) {
    for (long row = 0; row < rows; row++, x += width, half += width) {
        floats sum = same(0), squares = same(0);
        for (long i = 0; i < width; i += LANES) sum += load(x + i);
        float mean = total(sum) / width;
        for (long i = 0; i < width; i += LANES) {
            floats off = load(x + i) - mean;
            squares += off * off;
        }
        float factor = 1.0f / __builtin_sqrtf(total(squares) / width + epsilon);
        for (long i = 0; i < width; i += LANES) {
            floats found = (load(x + i) - mean) * factor * load(by->scale + i) + load(by->shift + i);
            store(x + i, found);
            to_bf16(half + i, found);
        }
    }
}

/* TILE rows of a, times b (depth, PLACES vectors), all f32. */
template <int PLACES>
ALWAYS void strip(const float *a, long a_stride, const float *b, long b_stride, long depth, float *to, long to_stride) {
    floats sums[TILE][PLACES] = {};
    for (long i = 0; i < depth; i++) {
        floats column[PLACES];
#pragma GCC unroll 4
        for (int place = 0; place < PLACES; place++) column[place] = load(b + i * b_stride + place * LANES);
#pragma GCC unroll 6
        for (int row = 0; row < TILE; row++)
#pragma GCC unroll 4
            for (int place = 0; place < PLACES; place++) sums[row][place] += a[row * a_stride + i] * column[place];
    }
    for (int row = 0; row < TILE; row++)
        for (int place = 0; place < PLACES; place++) store(to + row * to_stride + place * LANES, sums[row][place]);
}

/* The same for any multiple of PART columns. */
static void multiply(const float *a, long a_stride, const float *b, long b_stride, long depth, float *to,
                     long columns) {
    long column = 0;
    for (; column + COLUMNS <= columns; column += COLUMNS)
        strip<STRIP>(a, a_stride, b + column, b_stride, depth, to + column, columns);
    for (; column < columns; column += LANES)
        strip<1>(a, a_stride, b + column, b_stride, depth, to + column, columns);
}

/* Scores into what softmax makes of them but for the division by their sum, which it gives back. */
static float weigh(float *scores, long keys, float scale) {
    long all = rounded(keys, PART);
    for (long key = keys; key < all; key++) scores[key] = -__builtin_inff();
    floats most = load(scores), sum = same(0);
    for (long key = LANES; key < all; key += LANES) {
        floats x = load(scores + key);
        most = x > most ? x : most;
    }
    float largest = most[0];
    for (int lane = 1; lane < LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
    for (long key = 0; key < all; key += LANES) {
        floats x = raised((load(scores + key) - largest) * scale);
        store(scores + key, x);
        sum += x;
    }
    return total(sum);
}

/* A head of a text: what tokens first to last take over of all tokens' values. from: the queries of its first token.
space: of this thread; the keys as columns, the values, and a tile's scores, which its results replace. */
static void attend(const float *from, long tokens, long first, long last, long width, long head, bf16 *to,
                   float *space) {
    long stride = 3 * width, keys = rounded(tokens, PART);
    float *turned = space, *values = turned + head * keys, *scores = values + head * keys;
    const float scale = 1.0f / __builtin_sqrtf((float)head);
    for (long block = 0; block < keys; block += PART)
        for (long i = 0; i < head; i++)
            for (long key = block; key < block + PART; key++)
                turned[i * keys + key] = key < tokens ? from[key * stride + width + i] : 0;
    for (long key = 0; key < tokens; key++)
        memcpy(values + key * head, from + key * stride + 2 * width, head * sizeof(float));
    for (long row = first; row < last; row += TILE) {
        float sums[TILE], found[TILE * 256];
        multiply(from + row * stride, stride, turned, keys, head, scores, keys);
        long valid = less(last - row, TILE);
        for (long r = 0; r < valid; r++) sums[r] = weigh(scores + r * keys, tokens, scale);
        multiply(scores, keys, values, head, tokens, found, head);
        for (long r = 0; r < valid; r++)
            for (long i = 0; i < head; i += LANES)
                to_bf16(to + (row + r) * width + i, load(found + r * head + i) / sums[r]);
    }
}

/* All heads of the rows from begin to end, whatever texts they are of. */
static void attention(const Bert *bert, const Work *work, const float *projected, long begin, long end, bf16 *to,
                      float *space) {
    long width = bert->width, head = width / bert->heads;
    for (long text = 0, start = 0; text < work->texts && start < end; start += work->lengths[text++]) {
        long tokens = work->lengths[text], first = begin > start ? begin - start : 0, last = less(end - start, tokens);
        for (long at = 0; first < last && at < width; at += head)
            attend(projected + start * 3 * width + at, tokens, first, last, width, head, to + start * width + at,
                   space);
    }
}

static int read(const Bert *bert, const Work *work, int32_t thread) {
    const Places places(bert, work);
    long width = bert->width, share = rounded(work->tokens, TILE * work->threads) / work->threads;
    long begin = less(thread * share, work->tokens), end = less(begin + share, work->tokens);
    bf16 *half = (bf16 *)work->scratch;
    uint8_t *own = work->scratch + places.half + 2 * places.projected + thread * (places.inner + places.head);
    bf16 *inner = (bf16 *)own;
    float *space = (float *)(own + places.inner), *states = work->states;
    normalize(&bert->entry, bert->epsilon, states + begin * width, half + begin * width, end - begin, width);
    for (long number = 0; number < bert->count; number++) {
        const Layer *layer = bert->layers + number;
        long which = work->threads > 1 ? number % 2 : 0;
        float *projected = (float *)(work->scratch + places.half + which * places.projected);
        linear(&layer->projection, half + begin * width, end - begin, PLAIN, projected + begin * 3 * width, 0);
        if (!met(work, number + 1)) return 1;
        attention(bert, work, projected, begin, end, half, space);
        for (long row = begin; row < end; row += BLOCK) {
            long rows = less(end - row, BLOCK);
            float *x = states + row * width;
            bf16 *h = half + row * width;
            linear(&layer->output, h, rows, ADD, x, 0);
            normalize(&layer->attended, bert->epsilon, x, h, rows, width);
            linear(&layer->up, h, rows, GELU, 0, inner);
            linear(&layer->down, inner, rows, ADD, x, 0);
            normalize(&layer->fed, bert->epsilon, x, h, rows, width);
        }
    }
    return 0;
}
