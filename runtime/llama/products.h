/* Products with quantized weights, on CPUs with AVX512 and VNNI: included once by products.cpp.

The weights of SIDE outputs are unpacked into a panel, once for all rows: inputs in fours, outputs side by side, as
unsigned bytes, so that one instruction multiplies four inputs of sixteen outputs with those of a row. Per block of
inputs, and output, a panel has what the sum of such products is multiplied with, and what is taken off for each unit of
the sum of the row's inputs. */

typedef __m512i bytes;
typedef __m512 floats;

enum {
    LINE = 64, /* bytes of a cache */
    LANES = 16,
    STRIP = 2,            /* vectors of outputs beside each other */
    SIDE = STRIP * LANES, /* outputs of a panel */
    TILE = 6,             /* rows whose sums stay in registers */
    BLOCK = 32            /* inputs that share a scale in a row, and in most types of weights */
};

/* Of one thread: bytes (inputs / 4, STRIP, LANES, 4), scales and offsets (blocks, STRIP, LANES). */
struct Panel {
    uint8_t *weights;
    float *scales, *offsets;
};

/* Weights that come next, which are asked for bit by bit while others are computed with. */
struct Ahead {
    const uint8_t *at, *end;
    long step;
};

/* Rows as bytes, with the scale of each BLOCK inputs, and what their sums come to for each block of the weights: times
minus the zero of the weights (as int32), or times the scale (as float) where they have offsets. */
struct Activations {
    int8_t *values;
    float *scales;
    int32_t *sums;
    long stride, scale_stride, sum_stride;
};

/* A type of weights: so many inputs in so many bytes, `group` outputs side by side; a scale, and where they have them an
offset, for each block of inputs; the number that stands for zero where they have none. */
struct Kind {
    int type;
    bool repacked;
    int inputs, bytes, group, block, zero;
    bool offsets;
    void (*unpack)(const uint8_t *const *from, long inputs, const Panel *to, int strip);
    void (*multiply)(const Activations *, long first, long last, const Panel *, long inputs, float *to, long stride,
                     long outputs, Ahead *);
};

ALWAYS bytes same_byte(int value) { return _mm512_set1_epi8((char)value); }

ALWAYS floats half_floats(__m256i halves) { return _mm512_cvtph_ps(halves); }

/* Sixteen outputs' 16 bytes, which lie at a step from each other, as four vectors of what they have of each four. */
ALWAYS void turn(const uint8_t *const *from, long at, bytes to[4]) {
    bytes rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        bytes row = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(from[i] + at)));
        row = _mm512_mask_broadcast_i32x4(row, 0x00f0, _mm_loadu_si128((const __m128i *)(from[i + 4] + at)));
        row = _mm512_mask_broadcast_i32x4(row, 0x0f00, _mm_loadu_si128((const __m128i *)(from[i + 8] + at)));
        rows[i] = _mm512_mask_broadcast_i32x4(row, 0xf000, _mm_loadu_si128((const __m128i *)(from[i + 12] + at)));
    }
    bytes low = _mm512_unpacklo_epi32(rows[0], rows[1]), high = _mm512_unpackhi_epi32(rows[0], rows[1]);
    bytes low2 = _mm512_unpacklo_epi32(rows[2], rows[3]), high2 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    to[0] = _mm512_unpacklo_epi64(low, low2);
    to[1] = _mm512_unpackhi_epi64(low, low2);
    to[2] = _mm512_unpacklo_epi64(high, high2);
    to[3] = _mm512_unpackhi_epi64(high, high2);
}

/* The same of two groups of eight outputs, which lie eight bytes of each after the other: 16 bytes from `at` on. */
ALWAYS void take(const uint8_t *const *from, long at, bytes to[4]) {
    const bytes even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const bytes odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        bytes first = _mm512_loadu_si512(from[0] + at + 64 * i), second = _mm512_loadu_si512(from[1] + at + 64 * i);
        to[2 * i] = _mm512_permutex2var_epi32(first, even, second);
        to[2 * i + 1] = _mm512_permutex2var_epi32(first, odd, second);
    }
}

/* The half at the same place of each of sixteen outputs. */
ALWAYS floats halves_at(const uint8_t *const *from, long at) {
    f16 found[LANES];
    for (int i = 0; i < LANES; i++) memcpy(found + i, from[i] + at, sizeof *found);
    return half_floats(_mm256_loadu_si256((const __m256i *)found));
}

ALWAYS bytes low_nibbles(bytes x) { return _mm512_and_si512(x, same_byte(15)); }

ALWAYS bytes high_nibbles(bytes x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), same_byte(15)); }

/* Four inputs of a strip's sixteen outputs. */
ALWAYS void put(const Panel *panel, int strip, long input, bytes x) {
    _mm512_store_si512(panel->weights + (input / 4 * STRIP + strip) * 64, x);
}

ALWAYS void put_scale(float *to, int strip, long block, floats x) {
    _mm512_store_ps(to + (block * STRIP + strip) * LANES, x);
}

/* Byte `place` of each four, as a float. */
ALWAYS floats byte_of(bytes x, int place) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(x, 8 * place), _mm512_set1_epi32(255)));
}

/* ---- types of weights, sixteen outputs at a time ------------------------------------------------------------------ */

static void unpack_q8_0(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long block = 0; block < inputs / 32; block++) {
        put_scale(panel->scales, strip, block, halves_at(from, block * 34));
        for (int half = 0; half < 2; half++) {
            bytes x[4];
            turn(from, block * 34 + 2 + half * 16, x);
            for (int i = 0; i < 4; i++)
                put(panel, strip, block * 32 + half * 16 + i * 4, _mm512_xor_si512(x[i], same_byte(128)));
        }
    }
}

static void unpack_q4_0(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long block = 0; block < inputs / 32; block++) {
        bytes x[4];
        put_scale(panel->scales, strip, block, halves_at(from, block * 18));
        turn(from, block * 18 + 2, x);
        for (int i = 0; i < 4; i++) {
            put(panel, strip, block * 32 + i * 4, low_nibbles(x[i]));
            put(panel, strip, block * 32 + 16 + i * 4, high_nibbles(x[i]));
        }
    }
}

/* Eight outputs' scales, then their nibbles, eight bytes of each after the other, with the highest bit turned. */
static void unpack_q4_0x8(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long block = 0; block < inputs / 32; block++) {
        bytes x[4];
        const uint8_t *first = from[0] + block * 144, *second = from[1] + block * 144;
        __m256i scales = _mm256_loadu2_m128i((const __m128i *)second, (const __m128i *)first);
        put_scale(panel->scales, strip, block, half_floats(scales));
        take(from, block * 144 + 16, x);
        for (int i = 0; i < 4; i++) {
            bytes turned = _mm512_xor_si512(x[i], same_byte(0x88));
            put(panel, strip, block * 32 + i * 4, low_nibbles(turned));
            put(panel, strip, block * 32 + 16 + i * 4, high_nibbles(turned));
        }
    }
}

/* Bits first to first + 3 of each number, as the fifth bit of four bytes. */
ALWAYS bytes fifth(bytes bits, int first) {
    bytes four = _mm512_and_si512(_mm512_srli_epi32(bits, first), _mm512_set1_epi32(15));
    return _mm512_and_si512(_mm512_mullo_epi32(four, _mm512_set1_epi32(0x02040810)), same_byte(16));
}

static void unpack_q5_0(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long block = 0; block < inputs / 32; block++) {
        bytes x[4];
        uint32_t found[LANES];
        put_scale(panel->scales, strip, block, halves_at(from, block * 22));
        for (int i = 0; i < LANES; i++) memcpy(found + i, from[i] + block * 22 + 2, sizeof *found);
        bytes bits = _mm512_loadu_si512(found);
        turn(from, block * 22 + 6, x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            put(panel, strip, block * 32 + i * 4, _mm512_or_si512(low_nibbles(x[i]), fifth(bits, 4 * i)));
            put(panel, strip, block * 32 + 16 + i * 4, _mm512_or_si512(high_nibbles(x[i]), fifth(bits, 16 + 4 * i)));
        }
    }
}

/* The eight scales and offsets of 256 inputs, six bits each, of sixteen outputs: three times four bytes. */
ALWAYS void six_bits(bytes first, bytes second, bytes third, floats scale, floats offset, const Panel *panel, int strip,
                     long block) {
    const bytes six = same_byte(63), two = same_byte(3);
    bytes scales[2] = {_mm512_and_si512(first, six),
                       _mm512_or_si512(low_nibbles(third), _mm512_slli_epi16(
                           _mm512_and_si512(_mm512_srli_epi16(first, 6), two), 4))};
    bytes offsets[2] = {_mm512_and_si512(second, six),
                        _mm512_or_si512(high_nibbles(third), _mm512_slli_epi16(
                            _mm512_and_si512(_mm512_srli_epi16(second, 6), two), 4))};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        put_scale(panel->scales, strip, block + i, scale * byte_of(scales[i / 4], i % 4));
        put_scale(panel->offsets, strip, block + i, offset * byte_of(offsets[i / 4], i % 4));
    }
}

/* Both scales of 256 inputs and what six_bits() reads: 16 bytes of each output. */
ALWAYS void head_of_k(const uint8_t *const *from, long at, const Panel *panel, int strip, long block) {
    bytes head[4];
    turn(from, at, head);
    floats scale = half_floats(_mm512_cvtepi32_epi16(head[0]));
    floats offset = half_floats(_mm512_cvtepi32_epi16(_mm512_srli_epi32(head[0], 16)));
    six_bits(head[1], head[2], head[3], scale, offset, panel, strip, block);
}

static void unpack_q4_k(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long at = 0; at < inputs; at += 256) {
        long place = at / 256 * 144;
        head_of_k(from, place, panel, strip, at / 32);
        for (long half = 0; half < 8; half++) {
            bytes x[4];
            turn(from, place + 16 + half * 16, x);
            for (int i = 0; i < 4; i++) {
                long input = at + half / 2 * 64 + half % 2 * 16 + i * 4;
                put(panel, strip, input, low_nibbles(x[i]));
                put(panel, strip, input + 32, high_nibbles(x[i]));
            }
        }
    }
}

static void unpack_q5_k(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long at = 0; at < inputs; at += 256) {
        long place = at / 256 * 176;
        head_of_k(from, place, panel, strip, at / 32);
        for (int half = 0; half < 2; half++) {
            bytes bits[4];
            turn(from, place + 16 + half * 16, bits);
            for (int part = 0; part < 4; part++) {
                bytes x[4];
                turn(from, place + 48 + part * 32 + half * 16, x);
                for (int i = 0; i < 4; i++) {
                    long input = at + part * 64 + half * 16 + i * 4;
                    bytes two = _mm512_srli_epi16(bits[i], 2 * part), fifth = same_byte(16);
                    bytes low = _mm512_and_si512(_mm512_slli_epi16(two, 4), fifth);
                    bytes high = _mm512_and_si512(_mm512_slli_epi16(two, 3), fifth);
                    put(panel, strip, input, _mm512_or_si512(low_nibbles(x[i]), low));
                    put(panel, strip, input + 32, _mm512_or_si512(high_nibbles(x[i]), high));
                }
            }
        }
    }
}

static void unpack_q6_k(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    const bytes two = same_byte(0x30);
    for (long at = 0; at < inputs; at += 256) {
        long place = at / 256 * 210;
        bytes scales[4];
        turn(from, place + 192, scales);
        floats scale = halves_at(from, place + 208);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            bytes signs = _mm512_srai_epi32(_mm512_slli_epi32(scales[i / 4], 24 - i % 4 * 8), 24);
            put_scale(panel->scales, strip, at / 16 + i, scale * _mm512_cvtepi32_ps(signs));
        }
        for (int part = 0; part < 4; part++) { /* 128 inputs each two, sixteen bytes of the high bits each one */
            bytes first[4], second[4], bits[4];
            long of = place + part / 2 * 64 + part % 2 * 16;
            turn(from, of, first);
            turn(from, of + 32, second);
            turn(from, place + 128 + part * 16, bits);
            for (int i = 0; i < 4; i++) {
                long input = at + part / 2 * 128 + part % 2 * 16 + i * 4;
                bytes b = bits[i];
                put(panel, strip, input,
                    _mm512_or_si512(low_nibbles(first[i]), _mm512_and_si512(_mm512_slli_epi16(b, 4), two)));
                put(panel, strip, input + 32,
                    _mm512_or_si512(low_nibbles(second[i]), _mm512_and_si512(_mm512_slli_epi16(b, 2), two)));
                put(panel, strip, input + 64, _mm512_or_si512(high_nibbles(first[i]), _mm512_and_si512(b, two)));
                put(panel, strip, input + 96,
                    _mm512_or_si512(high_nibbles(second[i]), _mm512_and_si512(_mm512_srli_epi16(b, 2), two)));
            }
        }
    }
}

/* As unpack_q4_k, of eight outputs: their scales, their offsets, and for each 32 inputs twelve bytes as six_bits() reads
them of one output. */
static void unpack_q4_kx8(const uint8_t *const *from, long inputs, const Panel *panel, int strip) {
    for (long at = 0; at < inputs; at += 256) {
        long place = at / 256 * 1152;
        const uint8_t *first = from[0] + place, *second = from[1] + place;
        floats scale = half_floats(_mm256_loadu2_m128i((const __m128i *)second, (const __m128i *)first));
        floats offset = half_floats(_mm256_loadu2_m128i((const __m128i *)(second + 16), (const __m128i *)(first + 16)));
        for (int block = 0; block < 8; block++) {
            uint8_t scales[LANES], offsets[LANES];
            for (int group = 0; group < 2; group++) {
                uint32_t words[3], low[2], high[2];
                memcpy(words, from[group] + place + 32 + block * 12, sizeof words);
                low[0] = words[0] & 0x3f3f3f3f;
                low[1] = (words[2] & 0x0f0f0f0f) | (words[0] >> 6 & 0x03030303) << 4;
                high[0] = words[1] & 0x3f3f3f3f;
                high[1] = (words[2] >> 4 & 0x0f0f0f0f) | (words[1] >> 6 & 0x03030303) << 4;
                memcpy(scales + group * 8, low, sizeof low);
                memcpy(offsets + group * 8, high, sizeof high);
            }
            floats by = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)scales)));
            floats off = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)offsets)));
            put_scale(panel->scales, strip, at / 32 + block, scale * by);
            put_scale(panel->offsets, strip, at / 32 + block, offset * off);
        }
        for (long half = 0; half < 8; half++) {
            bytes x[4];
            take(from, place + 128 + half * 128, x);
            for (int i = 0; i < 4; i++) {
                long input = at + half / 2 * 64 + half % 2 * 16 + i * 4;
                put(panel, strip, input, low_nibbles(x[i]));
                put(panel, strip, input + 32, high_nibbles(x[i]));
            }
        }
    }
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* A row of f32 as bytes: in each BLOCK the largest becomes 127. */
static void quantize(const float *from, long inputs, const Kind *kind, const Activations *to, long row) {
    int8_t *values = to->values + row * to->stride;
    float *scales = to->scales + row * to->scale_stride;
    int32_t *sums = to->sums + row * to->sum_stride;
    for (long block = 0; block < inputs / BLOCK; block++, from += BLOCK, values += BLOCK) {
        floats x[2] = {_mm512_loadu_ps(from), _mm512_loadu_ps(from + LANES)};
        float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
        float scale = most / 127, by = most > 0 ? 127 / most : 0;
        scales[block] = scale;
        int32_t sum[2];
        for (int i = 0; i < 2; i++) {
            bytes whole = _mm512_cvtps_epi32(x[i] * by);
            _mm_storeu_si128((__m128i *)(values + i * LANES), _mm512_cvtsepi32_epi8(whole));
            sum[i] = _mm512_reduce_add_epi32(whole);
        }
        if (kind->offsets) {
            float all = scale * (float)(sum[0] + sum[1]);
            memcpy(sums + block, &all, sizeof all);
        } else if (kind->block == BLOCK) sums[block] = -kind->zero * (sum[0] + sum[1]);
        else for (int i = 0; i < 2; i++) sums[2 * block + i] = -kind->zero * sum[i];
    }
}

/* ROWS rows of the activations, times a panel. PER: inputs of a block of the weights. */
template <int ROWS, int PER, bool OFFSETS>
ALWAYS void tile(const Activations *a, long row, const Panel *panel, long inputs, floats sums[ROWS][STRIP],
                 Ahead *ahead) {
    const int8_t *values = a->values + row * a->stride;
    const float *scales = a->scales + row * a->scale_stride;
    const int32_t *corrections = a->sums + row * a->sum_stride;
    const uint8_t *weights = panel->weights;
    const float *by = panel->scales, *offsets = panel->offsets;
    floats found[ROWS][STRIP];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int s = 0; s < STRIP; s++) found[r][s] = _mm512_setzero_ps();
    for (long block = 0; block < inputs / PER; block++, by += SIDE, offsets += SIDE) {
        bytes whole[ROWS][STRIP];
        if (ahead->at < ahead->end)
            for (const uint8_t *to = ahead->at + ahead->step; ahead->at < to; ahead->at += LINE)
                __builtin_prefetch(ahead->at, 0, 2);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++)
                whole[r][s] = OFFSETS ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[r * a->sum_stride + block]);
#pragma GCC unroll 8
        for (int four = 0; four < PER / 4; four++, weights += SIDE * 4) {
            bytes w[STRIP];
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++) w[s] = _mm512_load_si512(weights + 64 * s);
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++) {
                int32_t inputs_of;
                memcpy(&inputs_of, values + r * a->stride + block * PER + four * 4, sizeof inputs_of);
                bytes x = _mm512_set1_epi32(inputs_of);
#pragma GCC unroll 2
                for (int s = 0; s < STRIP; s++) whole[r][s] = _mm512_dpbusd_epi32(whole[r][s], w[s], x);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            floats scale = _mm512_set1_ps(scales[r * a->scale_stride + block * PER / BLOCK]);
            float sum = 0;
            if (OFFSETS) memcpy(&sum, corrections + r * a->sum_stride + block, sizeof sum);
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++) {
                floats both = scale * _mm512_load_ps(by + s * LANES);
                found[r][s] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][s]), both, found[r][s]);
                if (OFFSETS) found[r][s] = _mm512_fnmadd_ps(_mm512_set1_ps(sum), _mm512_load_ps(offsets + s * LANES), found[r][s]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int s = 0; s < STRIP; s++) sums[r][s] = found[r][s];
}

template <int ROWS, int PER, bool OFFSETS>
static void rows(const Activations *a, long row, const Panel *panel, long inputs, float *to, long stride, long outputs,
                 Ahead *ahead) {
    floats sums[ROWS][STRIP];
    tile<ROWS, PER, OFFSETS>(a, row, panel, inputs, sums, ahead);
    for (int r = 0; r < ROWS; r++, to += stride)
        for (int s = 0; s < STRIP; s++) {
            long left = outputs - s * LANES;
            if (left > 0) _mm512_mask_storeu_ps(to + s * LANES, left < LANES ? (1u << left) - 1 : 0xffff, sums[r][s]);
        }
}

/* Rows first to last, times a panel, to as many of its outputs as there are. */
template <int PER, bool OFFSETS>
static void multiply(const Activations *a, long first, long last, const Panel *panel, long inputs, float *to,
                     long stride, long outputs, Ahead *ahead) {
    while (first < last) {
        long tiles = (last - first + TILE - 1) / TILE, count = (last - first + tiles - 1) / tiles;
        float *at = to + first * stride;
        switch (count) {
        case 1: rows<1, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        case 2: rows<2, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        case 3: rows<3, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        case 4: rows<4, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        case 5: rows<5, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        default: rows<6, PER, OFFSETS>(a, first, panel, inputs, at, stride, outputs, ahead); break;
        }
        first += count;
    }
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

static const Kind kinds[] = {
    {Q8_0, false, 32, 34, 1, 32, 128, false, unpack_q8_0, multiply<32, false>},
    {Q5_0, false, 32, 22, 1, 32, 16, false, unpack_q5_0, multiply<32, false>},
    {Q4_0, false, 32, 18, 1, 32, 8, false, unpack_q4_0, multiply<32, false>},
    {Q4_0, true, 32, 18, 8, 32, 8, false, unpack_q4_0x8, multiply<32, false>},
    {Q4_K, false, 256, 144, 1, 32, 0, true, unpack_q4_k, multiply<32, true>},
    {Q4_K, true, 256, 144, 8, 32, 0, true, unpack_q4_kx8, multiply<32, true>},
    {Q5_K, false, 256, 176, 1, 32, 0, true, unpack_q5_k, multiply<32, true>},
    {Q6_K, false, 256, 210, 1, 16, 32, false, unpack_q6_k, multiply<16, false>},
};

static const Kind *find_kind(int type, bool repacked) {
    for (const Kind &kind : kinds)
        if (kind.type == type && kind.repacked == repacked) return &kind;
    return 0;
}

/* Whether quantize() makes the same of rows for both. */
static bool same_rows(const Kind *one, const Kind *other) {
    return one->block == other->block && one->zero == other->zero && one->offsets == other->offsets;
}
