/* Products with quantized weights, on CPUs with AVX512 and VNNI: included once by products.cpp.

Weights are read as sixteen outputs side by side, inputs in fours, as unsigned bytes, so that one instruction multiplies
four inputs of sixteen outputs with those of a row. Per block of inputs, and output, there is what the sum of such
products is multiplied with, and what is taken off for each unit of the sum of the row's inputs. A single row multiplies
them as they are read; for several the weights of SIDE outputs are put into a panel once. */

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

/* Of one thread: bytes (inputs / 4, STRIP, LANES, 4), scales and offsets (blocks, STRIP, LANES), and room for LANES
outputs as they are in the file. */
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

/* A part of them. */
ALWAYS void ask(Ahead *ahead) {
    if (ahead->at < ahead->end)
        for (const uint8_t *to = ahead->at + ahead->step; ahead->at < to; ahead->at += LINE)
            __builtin_prefetch(ahead->at, 0, 2);
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

/* The weights of sixteen outputs, which lie at a step from each other. */
struct Sixteen {
    const uint8_t *at[4]; /* of every fourth */
    long step, three;     /* once and three times */
};

/* A type of weights: so many inputs in so many bytes, `group` outputs side by side; a scale, and where they have them an
offset, for each block of inputs; the number that stands for zero where they have none. */
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

ALWAYS bytes same_byte(int value) { return _mm512_set1_epi8((char)value); }

ALWAYS floats half_floats(__m256i halves) { return _mm512_cvtph_ps(halves); }

ALWAYS Sixteen sixteen_from(const uint8_t *first, long step) {
    return {{first, first + 4 * step, first + 8 * step, first + 12 * step}, step, 3 * step};
}

/* So many bytes further. */
ALWAYS void pass(Sixteen *from, long count) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) from->at[i] += count;
}

ALWAYS __m128i bytes_at(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

/* 16 bytes of each output, those of outputs i, i + 4, i + 8, i + 12 in one vector. */
ALWAYS bytes every_fourth(const Sixteen *from, long place) {
    bytes found = _mm512_castsi128_si512(bytes_at(from->at[0] + place));
    found = _mm512_mask_broadcast_i32x4(found, 0x00f0, bytes_at(from->at[1] + place));
    found = _mm512_mask_broadcast_i32x4(found, 0x0f00, bytes_at(from->at[2] + place));
    return _mm512_mask_broadcast_i32x4(found, 0xf000, bytes_at(from->at[3] + place));
}

/* The same as four vectors of what all outputs have of each four bytes. */
ALWAYS void turn(const Sixteen *from, int at, bytes to[4]) {
    bytes rows[4] = {every_fourth(from, at), every_fourth(from, at + from->step),
                     every_fourth(from, at + 2 * from->step), every_fourth(from, at + from->three)};
    bytes low = _mm512_unpacklo_epi32(rows[0], rows[1]), high = _mm512_unpackhi_epi32(rows[0], rows[1]);
    bytes low2 = _mm512_unpacklo_epi32(rows[2], rows[3]), high2 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    to[0] = _mm512_unpacklo_epi64(low, low2);
    to[1] = _mm512_unpackhi_epi64(low, low2);
    to[2] = _mm512_unpacklo_epi64(high, high2);
    to[3] = _mm512_unpackhi_epi64(high, high2);
}

/* The same of two groups of eight outputs, which lie eight bytes of each after the other: 16 bytes from `at` on. */
ALWAYS void take(const Sixteen *from, int at, bytes to[4]) {
    const bytes even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const bytes odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        bytes first = _mm512_loadu_si512(from->at[0] + at + 64 * i);
        bytes second = _mm512_loadu_si512(from->at[2] + at + 64 * i);
        to[2 * i] = _mm512_permutex2var_epi32(first, even, second);
        to[2 * i + 1] = _mm512_permutex2var_epi32(first, odd, second);
    }
}

/* Eight halves of each of two groups. */
ALWAYS floats halves_of_groups(const Sixteen *from, int at) {
    return half_floats(_mm256_set_m128i(bytes_at(from->at[2] + at), bytes_at(from->at[0] + at)));
}

ALWAYS floats low_halves(bytes fours) { return half_floats(_mm512_cvtepi32_epi16(fours)); }

ALWAYS bytes low_nibbles(bytes x) { return _mm512_and_si512(x, same_byte(15)); }

ALWAYS bytes high_nibbles(bytes x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), same_byte(15)); }

/* Where weights go as they are read: into a panel. */
struct Strip {
    const Panel *panel;
    int strip;

    /* Four inputs of sixteen outputs, from at + input on. */
    ALWAYS_IN void put(long at, int input, bytes x) {
        _mm512_store_si512(panel->weights + ((at + input) / 4 * STRIP + strip) * 64, x);
    }
    ALWAYS_IN void scale(long block, floats x) { _mm512_store_ps(panel->scales + (block * STRIP + strip) * LANES, x); }
    ALWAYS_IN void offset(long block, floats x) { _mm512_store_ps(panel->offsets + (block * STRIP + strip) * LANES, x); }
    ALWAYS_IN void begin(long) {}
    ALWAYS_IN void end(long) {}
};

/* Or times a single row: COUNT blocks of PER inputs from begin() to end(). */
template <int COUNT, int PER, bool OFFSETS> struct Single {
    const int8_t *values;
    const float *scales;
    const int32_t *corrections;
    Ahead *ahead;
    floats sum, by[COUNT], offsets[COUNT];
    bytes whole[COUNT];

    ALWAYS_IN void put(long at, int input, bytes x) {
        int32_t four;
        memcpy(&four, values + at + input, sizeof four);
        bytes *to = whole + input / PER;
        *to = _mm512_dpbusd_epi32(*to, x, _mm512_set1_epi32(four));
    }
    ALWAYS_IN void scale(long block, floats x) { by[block % COUNT] = x; }
    ALWAYS_IN void offset(long block, floats x) { offsets[block % COUNT] = x; }
    ALWAYS_IN void begin(long block) {
        ask(ahead);
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; i++)
            whole[i] = OFFSETS ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[block + i]);
    }
    ALWAYS_IN void end(long block) {
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; i++) {
            floats both = _mm512_set1_ps(scales[(block + i) * PER / BLOCK]) * by[i];
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]), both, sum);
            if (OFFSETS) sum = _mm512_fnmadd_ps(_mm512_set1_ps(as_float(corrections[block + i])), offsets[i], sum);
        }
    }
};

/* Byte `place` of each four, as a float. */
ALWAYS floats byte_of(bytes x, int place) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(x, 8 * place), _mm512_set1_epi32(255)));
}

/* ---- types of weights, sixteen outputs at a time ------------------------------------------------------------------ */

struct InFileQ8_0 {
    enum { TYPE = Q8_0, REPACKED = 0, INPUTS = 32, BYTES = 34, GROUP = 1, PER = 32, ZERO = 128, OFFSETS = 0 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes first[4], last[4], head[4];
            to.begin(block);
            turn(&from, 0, head);
            to.scale(block, low_halves(head[0]));
            turn(&from, 2, first);
            turn(&from, 18, last);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                to.put(block * 32, i * 4, _mm512_xor_si512(first[i], same_byte(128)));
                to.put(block * 32, 16 + i * 4, _mm512_xor_si512(last[i], same_byte(128)));
            }
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ4_0 {
    enum { TYPE = Q4_0, REPACKED = 0, INPUTS = 32, BYTES = 18, GROUP = 1, PER = 32, ZERO = 8, OFFSETS = 0 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes head[4], x[4];
            to.begin(block);
            turn(&from, 0, head);
            to.scale(block, low_halves(head[0]));
            turn(&from, 2, x);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                to.put(block * 32, i * 4, low_nibbles(x[i]));
                to.put(block * 32, 16 + i * 4, high_nibbles(x[i]));
            }
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* Eight outputs' scales, then their nibbles, eight bytes of each after the other, with the highest bit turned. */
struct RepackedQ4_0 {
    enum { TYPE = Q4_0, REPACKED = 1, INPUTS = 32, BYTES = 18, GROUP = 8, PER = 32, ZERO = 8, OFFSETS = 0 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes x[4];
            to.begin(block);
            to.scale(block, halves_of_groups(&from, 0));
            take(&from, 16, x);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                bytes turned = _mm512_xor_si512(x[i], same_byte(0x88));
                to.put(block * 32, i * 4, low_nibbles(turned));
                to.put(block * 32, 16 + i * 4, high_nibbles(turned));
            }
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* Bits first to first + 3 of each number, as the fifth bit of four bytes. */
ALWAYS bytes fifth(bytes bits, int first) {
    bytes four = _mm512_and_si512(_mm512_srli_epi32(bits, first), _mm512_set1_epi32(15));
    return _mm512_and_si512(_mm512_mullo_epi32(four, _mm512_set1_epi32(0x02040810)), same_byte(16));
}

struct InFileQ5_0 {
    enum { TYPE = Q5_0, REPACKED = 0, INPUTS = 32, BYTES = 22, GROUP = 1, PER = 32, ZERO = 16, OFFSETS = 0 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes head[4], x[4];
            to.begin(block);
            turn(&from, 0, head);
            to.scale(block, low_halves(head[0]));
            bytes bits = _mm512_or_si512(_mm512_srli_epi32(head[0], 16), _mm512_slli_epi32(head[1], 16));
            turn(&from, 6, x);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                to.put(block * 32, i * 4, _mm512_or_si512(low_nibbles(x[i]), fifth(bits, 4 * i)));
                to.put(block * 32, 16 + i * 4, _mm512_or_si512(high_nibbles(x[i]), fifth(bits, 16 + 4 * i)));
            }
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* The eight scales and offsets of 256 inputs, six bits each, of sixteen outputs: three times four bytes. */
template <class To>
ALWAYS void six_bits(bytes first, bytes second, bytes third, floats scale, floats offset, long block, To &to) {
    const bytes six = same_byte(63), two = same_byte(3);
    bytes scales[2] = {_mm512_and_si512(first, six),
                       _mm512_or_si512(low_nibbles(third), _mm512_slli_epi16(
                           _mm512_and_si512(_mm512_srli_epi16(first, 6), two), 4))};
    bytes offsets[2] = {_mm512_and_si512(second, six),
                        _mm512_or_si512(high_nibbles(third), _mm512_slli_epi16(
                            _mm512_and_si512(_mm512_srli_epi16(second, 6), two), 4))};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        to.scale(block + i, scale * byte_of(scales[i / 4], i % 4));
        to.offset(block + i, offset * byte_of(offsets[i / 4], i % 4));
    }
}

/* Both scales of 256 inputs and what six_bits() reads: 16 bytes of each output. */
template <class To> ALWAYS void head_of_k(const Sixteen *from, long block, To &to) {
    bytes head[4];
    turn(from, 0, head);
    six_bits(head[1], head[2], head[3], low_halves(head[0]), low_halves(_mm512_srli_epi32(head[0], 16)), block, to);
}

struct InFileQ4_K {
    enum { TYPE = Q4_K, REPACKED = 0, INPUTS = 256, BYTES = 144, GROUP = 1, PER = 32, ZERO = 0, OFFSETS = 1 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long at = 0; at < inputs; at += 256) {
            to.begin(at / 32);
            head_of_k(&from, at / 32, to);
#pragma GCC unroll 8
            for (int half = 0; half < 8; half++) {
                bytes x[4];
                turn(&from, 16 + half * 16, x);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    int input = half / 2 * 64 + half % 2 * 16 + i * 4;
                    to.put(at, input, low_nibbles(x[i]));
                    to.put(at, input + 32, high_nibbles(x[i]));
                }
            }
            to.end(at / 32);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ5_K {
    enum { TYPE = Q5_K, REPACKED = 0, INPUTS = 256, BYTES = 176, GROUP = 1, PER = 32, ZERO = 0, OFFSETS = 1 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        const bytes fifth = same_byte(16);
        for (long at = 0; at < inputs; at += 256) {
            to.begin(at / 32);
            head_of_k(&from, at / 32, to);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                bytes bits[4];
                turn(&from, 16 + half * 16, bits);
#pragma GCC unroll 4
                for (int part = 0; part < 4; part++) {
                    bytes x[4];
                    turn(&from, 48 + part * 32 + half * 16, x);
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++) {
                        int input = part * 64 + half * 16 + i * 4;
                        bytes two = _mm512_srli_epi16(bits[i], 2 * part);
                        bytes low = _mm512_and_si512(_mm512_slli_epi16(two, 4), fifth);
                        bytes high = _mm512_and_si512(_mm512_slli_epi16(two, 3), fifth);
                        to.put(at, input, _mm512_or_si512(low_nibbles(x[i]), low));
                        to.put(at, input + 32, _mm512_or_si512(high_nibbles(x[i]), high));
                    }
                }
            }
            to.end(at / 32);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ6_K {
    enum { TYPE = Q6_K, REPACKED = 0, INPUTS = 256, BYTES = 210, GROUP = 1, PER = 16, ZERO = 32, OFFSETS = 0 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        const bytes two = same_byte(0x30);
        for (long at = 0; at < inputs; at += 256) {
            bytes scales[4], last[4];
            to.begin(at / 16);
            turn(&from, 192, scales);
            turn(&from, 194, last);
            floats scale = low_halves(_mm512_srli_epi32(last[3], 16));
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                bytes signs = _mm512_srai_epi32(_mm512_slli_epi32(scales[i / 4], 24 - i % 4 * 8), 24);
                to.scale(at / 16 + i, scale * _mm512_cvtepi32_ps(signs));
            }
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++) { /* 128 inputs each two, sixteen bytes of the high bits each one */
                bytes first[4], second[4], bits[4];
                int of = part / 2 * 64 + part % 2 * 16;
                turn(&from, of, first);
                turn(&from, of + 32, second);
                turn(&from, 128 + part * 16, bits);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    int input = part / 2 * 128 + part % 2 * 16 + i * 4;
                    bytes b = bits[i];
                    bytes b0 = _mm512_and_si512(_mm512_slli_epi16(b, 4), two);
                    bytes b1 = _mm512_and_si512(_mm512_slli_epi16(b, 2), two);
                    bytes b2 = _mm512_and_si512(b, two), b3 = _mm512_and_si512(_mm512_srli_epi16(b, 2), two);
                    to.put(at, input, _mm512_or_si512(low_nibbles(first[i]), b0));
                    to.put(at, input + 32, _mm512_or_si512(low_nibbles(second[i]), b1));
                    to.put(at, input + 64, _mm512_or_si512(high_nibbles(first[i]), b2));
                    to.put(at, input + 96, _mm512_or_si512(high_nibbles(second[i]), b3));
                }
            }
            to.end(at / 16);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* As in the file, of eight outputs: their scales, their offsets, and for each 32 inputs twelve bytes as six_bits() reads
them of one output. */
struct RepackedQ4_K {
    enum { TYPE = Q4_K, REPACKED = 1, INPUTS = 256, BYTES = 144, GROUP = 8, PER = 32, ZERO = 0, OFFSETS = 1 };

    template <class To> static ALWAYS_IN void read(Sixteen from, long inputs, To &to) {
        for (long at = 0; at < inputs; at += 256) {
            to.begin(at / 32);
            for (int block = 0; block < 8; block++) scales_of(&from, at / 32, block, to);
#pragma GCC unroll 8
            for (int half = 0; half < 8; half++) {
                bytes x[4];
                take(&from, 128 + half * 128, x);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    int input = half / 2 * 64 + half % 2 * 16 + i * 4;
                    to.put(at, input, low_nibbles(x[i]));
                    to.put(at, input + 32, high_nibbles(x[i]));
                }
            }
            to.end(at / 32);
            pass(&from, BYTES * GROUP);
        }
    }

    template <class To>
    static ALWAYS_IN void scales_of(const Sixteen *from, long first, int block, To &to) {
        floats scale = halves_of_groups(from, 0), offset = halves_of_groups(from, 16);
        uint8_t scales[LANES], offsets[LANES];
        for (int group = 0; group < 2; group++) {
            uint32_t words[3], low[2], high[2];
            memcpy(words, from->at[2 * group] + 32 + block * 12, sizeof words);
            low[0] = words[0] & 0x3f3f3f3f;
            low[1] = (words[2] & 0x0f0f0f0f) | (words[0] >> 6 & 0x03030303) << 4;
            high[0] = words[1] & 0x3f3f3f3f;
            high[1] = (words[2] >> 4 & 0x0f0f0f0f) | (words[1] >> 6 & 0x03030303) << 4;
            memcpy(scales + group * 8, low, sizeof low);
            memcpy(offsets + group * 8, high, sizeof high);
        }
        floats by = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)scales)));
        floats off = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)offsets)));
        to.scale(first + block, scale * by);
        to.offset(first + block, offset * off);
    }
};

template <class Weights>
static void unpack(const uint8_t *from, long step, long inputs, const Panel *panel, int strip) {
    Strip to = {panel, strip};
    Weights::read(sixteen_from(from, step), inputs, to);
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* A block of a row of f32 as bytes, of which the largest becomes 127, and its sums for each kind of weights. */
static void quantize(const float *from, const Activations *forms, long count, long row, long block) {
    from += block * BLOCK;
    floats x[2] = {_mm512_loadu_ps(from), _mm512_loadu_ps(from + LANES)};
    float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
    float scale = most / 127, by = most > 0 ? 127 / most : 0;
    forms->scales[row * forms->scale_stride + block] = scale;
    int32_t sum[2];
    for (int i = 0; i < 2; i++) {
        bytes whole = _mm512_cvtps_epi32(x[i] * by);
        int8_t *to = forms->values + row * forms->stride + block * BLOCK + i * LANES;
        _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(whole));
        sum[i] = _mm512_reduce_add_epi32(whole);
    }
    for (const Activations *form = forms; form < forms + count; form++) {
        int32_t *to = form->sums + row * form->sum_stride;
        int zero = form->kind->zero;
        if (form->kind->offsets) to[block] = as_bits(scale * (float)(sum[0] + sum[1]));
        else if (form->kind->block == BLOCK) to[block] = -zero * (sum[0] + sum[1]);
        else for (int i = 0; i < 2; i++) to[2 * block + i] = -zero * sum[i];
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
        ask(ahead);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++)
                whole[r][s] =
                    OFFSETS ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[r * a->sum_stride + block]);
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
            float sum = OFFSETS ? as_float(corrections[r * a->sum_stride + block]) : 0;
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++) {
                floats both = scale * _mm512_load_ps(by + s * LANES);
                found[r][s] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][s]), both, found[r][s]);
                if (OFFSETS)
                    found[r][s] =
                        _mm512_fnmadd_ps(_mm512_set1_ps(sum), _mm512_load_ps(offsets + s * LANES), found[r][s]);
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

/* A single row, times sixteen outputs, to as many as there are. */
template <class Weights>
static void single(const uint8_t *from, long step, const Activations *a, long inputs, float *to, long outputs,
                   Ahead *ahead) {
    Single<Weights::INPUTS / Weights::PER, Weights::PER, Weights::OFFSETS> row;
    row.values = a->values, row.scales = a->scales, row.corrections = a->sums, row.ahead = ahead;
    row.sum = _mm512_setzero_ps();
    Weights::read(sixteen_from(from, step), inputs, row);
    _mm512_mask_storeu_ps(to, outputs < LANES ? (1u << outputs) - 1 : 0xffff, row.sum);
}

template <class W> static constexpr Kind kind_for() {
    return {W::TYPE, W::REPACKED, W::INPUTS,  W::BYTES,  W::GROUP,
            W::PER,  W::ZERO,     W::OFFSETS, unpack<W>, multiply<W::PER, W::OFFSETS>, single<W>};
}

static const Kind kinds[] = {kind_for<InFileQ8_0>(), kind_for<InFileQ5_0>(),   kind_for<InFileQ4_0>(),
                             kind_for<InFileQ4_K>(), kind_for<InFileQ5_K>(),   kind_for<InFileQ6_K>(),
                             kind_for<RepackedQ4_0>(), kind_for<RepackedQ4_K>()};

static const Kind *find_kind(int type, bool repacked) {
    for (const Kind &kind : kinds)
        if (kind.type == type && kind.repacked == repacked) return &kind;
    return 0;
}

/* Whether quantize() makes the same of rows for both. */
static bool same_rows(const Kind *one, const Kind *other) {
    return one->block == other->block && one->zero == other->zero && one->offsets == other->offsets;
}
