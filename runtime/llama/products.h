/* Types of quantized weights, and rows that are multiplied with them: included by products.cpp for each level of CPU.

Weights are read as LANES outputs side by side, inputs in fours, as bytes, so that one instruction multiplies four
inputs of all these outputs with those of a row. Per block of inputs, and output, there is what the sum of such
products is multiplied with, and what is taken off for each unit of the sum of the row's inputs. A single row
multiplies them as they are read; for several the weights of SIDE outputs are put into a panel once. */

#include "lanes.h"

enum { SIDE = STRIP * LANES, TILE = LANES == 16 ? 6 : 4 };

/* Where weights go as they are read: into a panel. */
struct Strip {
    const Panel *panel;
    int strip;

    /* Four inputs of all outputs, from at + input on. */
    ALWAYS_IN void put(long at, int input, bytes x) {
        *(bytes *)(panel->weights + (at + input) * SIDE + strip * 4 * LANES) = x;
    }
    ALWAYS_IN void scale(long block, floats x) { *(floats *)(panel->scales + block * SIDE + strip * LANES) = x; }
    ALWAYS_IN void offset(long block, floats x) { *(floats *)(panel->offsets + block * SIDE + strip * LANES) = x; }
    ALWAYS_IN void begin(long, int = 0) {}
    ALWAYS_IN void end(long, int = 0) {}
};

/* Or times a single row: ONCE inputs from begin() to end(), or fewer. The weights that come next are asked for a line
at a time, between multiplications: a CPU that is asked for many at once does nothing else meanwhile. */
template <class Weights> struct Single {
    enum { PER = Weights::PER, COUNT = Weights::ONCE / PER, OFFSETS = Weights::OFFSETS };
    enum { NEXT = (4 * Weights::BYTES * LANES - 1) / Weights::INPUTS + 1 }; /* bytes of those, for each put() */
    const int8_t *values;
    const float *scales;
    const int32_t *corrections;
    Ahead *ahead;
    floats sum, by[COUNT], offsets[COUNT];
    Sum<Weights::BITS> whole[COUNT];
    const uint8_t *next;
    long first;
    int puts, asked;

    ALWAYS_IN void put(long at, int input, bytes x) {
        puts++;
        for (; asked * LINE < puts * NEXT; asked++) ask_for(next + asked * LINE);
        whole[input / PER].add(x, same_word(four_at(values + at + input)));
    }
    ALWAYS_IN void scale(long block, floats x) { by[block - first] = x; }
    ALWAYS_IN void offset(long block, floats x) { offsets[block - first] = x; }
    ALWAYS_IN void begin(long block, int count = COUNT) {
        first = block, next = ahead->at < ahead->end ? ahead->at : ahead->end, puts = asked = 0;
        ask_for(next + PAGE);
#pragma GCC unroll 16
        for (int i = 0; i < count; i++) whole[i].begin(OFFSETS ? 0 : corrections[block + i]);
    }
    ALWAYS_IN void end(long block, int count = COUNT) {
        ahead->at = next + asked * LINE;
#pragma GCC unroll 16
        for (int i = 0; i < count; i++) {
            floats both = same(scales[(block + i) * PER / BLOCK]) * by[i];
            bytes found = whole[i].end(OFFSETS ? 0 : corrections[block + i]);
            sum = V(fmadd_ps)(V(cvtepi32_ps)(found), both, sum);
            if (OFFSETS) sum = V(fnmadd_ps)(same(as_float(corrections[block + i])), offsets[i], sum);
        }
    }
};

/* ---- types of weights, LANES outputs at a time ------------------------------------------------------------------- */

struct InFileQ8_0 {
    enum { TYPE = Q8_0, REPACKED = 0, INPUTS = 32, BYTES = 34, GROUP = 1, PER = 32, OFFSETS = 0 };
    enum { BITS = 8, ZERO = ZERO_OF_BYTES, ONCE = 32 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes head[4], x[8];
            to.begin(block);
            turn(&from, 0, head);
            to.scale(block, low_halves(head[0]));
            turn_32(&from, 2, x);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) to.put(block * 32, i * 4, x[i] ^ same_byte(ZERO));
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ4_0 {
    enum { TYPE = Q4_0, REPACKED = 0, INPUTS = 32, BYTES = 18, GROUP = 1, PER = 32, OFFSETS = 0 };
    enum { BITS = 4, ZERO = 8, ONCE = 128 };

    static ALWAYS_IN void read(Outputs from, long inputs, Strip &to) {
        for (long block = 0; block < inputs / 32; block++) one(&from, block, to);
    }

    /* Four blocks at a time, from where they begin: a scale takes half a number, so in every other block the nibbles
    are off by half a number, and so are the row's inputs that they are multiplied with. */
    static ALWAYS_IN void read(Outputs from, long inputs, Single<InFileQ4_0> &to) {
        long block = 0;
        for (; block + 4 <= inputs / 32; block += 4) {
            bytes x[8];
            to.begin(block);
            turn_32(&from, 0, x);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) number(x[i], i, block, to);
            turn_32(&from, 32, x);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) number(x[i], 8 + i, block, to);
            turn(&from, 56, x);
            number(x[2], 16, block, to);
            number(x[3], 17, block, to);
            to.end(block);
            pass(&from, 4 * BYTES);
        }
        for (; block < inputs / 32; block++) one(&from, block, to);
    }

    template <class To> static ALWAYS_IN void one(Outputs *from, long block, To &to) {
        bytes head[4], x[4];
        to.begin(block, 1);
        turn(from, 0, head);
        to.scale(block, low_halves(head[0]));
        turn(from, 2, x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            to.put(block * 32, i * 4, low_nibbles(x[i]));
            to.put(block * 32, 16 + i * 4, high_nibbles(x[i]));
        }
        to.end(block, 1);
        pass(from, BYTES);
    }

    /* Of the 18 of four blocks: nine of two. */
    static ALWAYS_IN void number(bytes x, int place, long block, Single<InFileQ4_0> &to) {
        int of = place % 9, which = place / 9 * 2 + (of > 4), shift = of > 4 ? of * 4 - 20 : of * 4 - 2;
        if (of == 0) to.scale(block + which, low_halves(x));
        if (of == 4) to.scale(block + which + 1, low_halves(right32(x, 16)));
        bytes nibbles = same_word(of == 0 ? 0x0f0f0000 : of == 4 ? 0x00000f0f : 0x0f0f0f0f);
        to.put(block * 32 + shift, which * 32, x & nibbles);
        to.put(block * 32 + shift + 16, which * 32, right16(x, 4) & nibbles);
    }
};

/* Eight outputs' scales, then their nibbles, eight bytes of each after the other, with the highest bit turned. */
struct RepackedQ4_0 {
    enum { TYPE = Q4_0, REPACKED = 1, INPUTS = 32, BYTES = 18, GROUP = 8, PER = 32, OFFSETS = 0 };
    enum { BITS = 4, ZERO = 8, ONCE = 32 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes x[4];
            to.begin(block);
            to.scale(block, halves_of_groups(&from, 0));
            take(&from, 16, x);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                bytes turned = x[i] ^ same_byte(0x88);
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
    bytes four = right32(bits, first) & same_word(15);
    return V(mullo_epi32)(four, same_word(0x02040810)) & same_byte(16);
}

struct InFileQ5_0 {
    enum { TYPE = Q5_0, REPACKED = 0, INPUTS = 32, BYTES = 22, GROUP = 1, PER = 32, OFFSETS = 0 };
    enum { BITS = 5, ZERO = 16, ONCE = 32 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
        for (long block = 0; block < inputs / 32; block++) {
            bytes head[4], x[4];
            to.begin(block);
            turn(&from, 0, head);
            to.scale(block, low_halves(head[0]));
            bytes bits = right32(head[0], 16) | left32(head[1], 16);
            turn(&from, 6, x);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                to.put(block * 32, i * 4, low_nibbles(x[i]) | fifth(bits, 4 * i));
                to.put(block * 32, 16 + i * 4, high_nibbles(x[i]) | fifth(bits, 16 + 4 * i));
            }
            to.end(block);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* The eight scales and offsets of 256 inputs, six bits each, of all outputs: three times four bytes. */
template <class To>
ALWAYS void six_bits(bytes first, bytes second, bytes third, floats scale, floats offset, long block, To &to) {
    const bytes six = same_byte(63), two = same_byte(3);
    bytes scales[2] = {first & six, low_nibbles(third) | left16(right16(first, 6) & two, 4)};
    bytes offsets[2] = {second & six, high_nibbles(third) | left16(right16(second, 6) & two, 4)};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        to.scale(block + i, scale * byte_of(scales[i / 4], i % 4));
        to.offset(block + i, offset * byte_of(offsets[i / 4], i % 4));
    }
}

/* Both scales of 256 inputs and what six_bits() reads: 16 bytes of each output. */
template <class To> ALWAYS void head_of_k(const Outputs *from, long block, To &to) {
    bytes head[4];
    turn(from, 0, head);
    six_bits(head[1], head[2], head[3], low_halves(head[0]), low_halves(right32(head[0], 16)), block, to);
}

struct InFileQ4_K {
    enum { TYPE = Q4_K, REPACKED = 0, INPUTS = 256, BYTES = 144, GROUP = 1, PER = 32, OFFSETS = 1 };
    enum { BITS = 4, ZERO = 0, ONCE = 256 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
        for (long at = 0; at < inputs; at += 256) {
            to.begin(at / 32);
            head_of_k(&from, at / 32, to);
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++) {
                bytes x[8];
                turn_32(&from, 16 + part * 32, x);
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++) {
                    to.put(at, part * 64 + i * 4, low_nibbles(x[i]));
                    to.put(at, part * 64 + i * 4 + 32, high_nibbles(x[i]));
                }
            }
            to.end(at / 32);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ5_K {
    enum { TYPE = Q5_K, REPACKED = 0, INPUTS = 256, BYTES = 176, GROUP = 1, PER = 32, OFFSETS = 1 };
    enum { BITS = 5, ZERO = 0, ONCE = 256 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
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
                        bytes two = right16(bits[i], 2 * part);
                        to.put(at, input, low_nibbles(x[i]) | (left16(two, 4) & fifth));
                        to.put(at, input + 32, high_nibbles(x[i]) | (left16(two, 3) & fifth));
                    }
                }
            }
            to.end(at / 32);
            pass(&from, BYTES * GROUP);
        }
    }
};

struct InFileQ6_K {
    enum { TYPE = Q6_K, REPACKED = 0, INPUTS = 256, BYTES = 210, GROUP = 1, PER = 16, OFFSETS = 0 };
    enum { BITS = 6, ZERO = 32, ONCE = 256 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
        const bytes two = same_byte(0x30);
        for (long at = 0; at < inputs; at += 256) {
            bytes scales[4], last[4];
            to.begin(at / 16);
            turn(&from, 192, scales);
            turn(&from, 194, last);
            floats scale = low_halves(right32(last[3], 16));
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                to.scale(at / 16 + i, scale * signed_byte(left32(scales[i / 4], 24 - i % 4 * 8)));
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
                    to.put(at, input, low_nibbles(first[i]) | (left16(b, 4) & two));
                    to.put(at, input + 32, low_nibbles(second[i]) | (left16(b, 2) & two));
                    to.put(at, input + 64, high_nibbles(first[i]) | (b & two));
                    to.put(at, input + 96, high_nibbles(second[i]) | (right16(b, 2) & two));
                }
            }
            to.end(at / 16);
            pass(&from, BYTES * GROUP);
        }
    }
};

/* As in the file, of eight outputs: their scales, their offsets, and for each 32 inputs twelve bytes as six_bits()
reads them of one output. */
struct RepackedQ4_K {
    enum { TYPE = Q4_K, REPACKED = 1, INPUTS = 256, BYTES = 144, GROUP = 8, PER = 32, OFFSETS = 1 };
    enum { BITS = 4, ZERO = 0, ONCE = 256 };

    template <class To> static ALWAYS_IN void read(Outputs from, long inputs, To &to) {
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
    static ALWAYS_IN void scales_of(const Outputs *from, long first, int block, To &to) {
        floats scale = halves_of_groups(from, 0), offset = halves_of_groups(from, 16);
        uint8_t scales[16], offsets[16];
        for (int group = 0; group < LANES / 8; group++) {
            uint32_t words[3], low[2], high[2];
            memcpy(words, from->at[2 * group] + 32 + block * 12, sizeof words);
            low[0] = words[0] & 0x3f3f3f3f;
            low[1] = (words[2] & 0x0f0f0f0f) | (words[0] >> 6 & 0x03030303) << 4;
            high[0] = words[1] & 0x3f3f3f3f;
            high[1] = (words[2] >> 4 & 0x0f0f0f0f) | (words[1] >> 6 & 0x03030303) << 4;
            memcpy(scales + group * 8, low, sizeof low);
            memcpy(offsets + group * 8, high, sizeof high);
        }
        to.scale(first + block, scale * wide_bytes(scales));
        to.offset(first + block, offset * wide_bytes(offsets));
    }
};

template <class Weights>
static void unpack(const uint8_t *from, long step, long inputs, const Panel *panel, int strip) {
    Strip to = {panel, strip};
    Weights::read(outputs_from(from, step), inputs, to);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* A block of a row of f32 as bytes, of which the largest becomes 127, and its sums for each kind of weights. */
static void quantize(const float *from, const Activations *forms, long count, long row, long block) {
    enum { PARTS = BLOCK / LANES };
    floats x[PARTS], sizes = same(0);
    for (int i = 0; i < PARTS; i++) {
        x[i] = V(loadu_ps)(from + block * BLOCK + i * LANES);
        sizes = larger(sizes, size_of(x[i]));
    }
    float most = largest(sizes), scale = most / 127, by = most > 0 ? 127 / most : 0;
    forms->scales[row * forms->scale_stride + block] = scale;
    int32_t sum[2] = {0, 0};
    for (int i = 0; i < PARTS; i++) {
        bytes whole = V(cvtps_epi32)(x[i] * by);
        store_bytes(forms->values + row * forms->stride + block * BLOCK + i * LANES, whole);
        sum[i * LANES / 16] += total(whole);
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
template <int ROWS, int PER, int BITS, bool OFFSETS>
ALWAYS void tile(const Activations *a, long row, const Panel *panel, long inputs, floats sums[ROWS][STRIP],
                 Ahead *ahead) {
    const int8_t *values = a->values + row * a->stride;
    const float *scales = a->scales + row * a->scale_stride;
    const int32_t *corrections = a->sums + row * a->sum_stride;
    const bytes *weights = (const bytes *)panel->weights;
    const floats *by = (const floats *)panel->scales, *offsets = (const floats *)panel->offsets;
    floats found[ROWS][STRIP];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int s = 0; s < STRIP; s++) found[r][s] = same(0);
    for (long block = 0; block < inputs / PER; block++, by += STRIP, offsets += STRIP) {
        Sum<BITS> whole[ROWS][STRIP];
        ask(ahead);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++) whole[r][s].begin(OFFSETS ? 0 : corrections[r * a->sum_stride + block]);
#pragma GCC unroll 8
        for (int four = 0; four < PER / 4; four++, weights += STRIP) {
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++) {
                bytes x = same_word(four_at(values + r * a->stride + block * PER + four * 4));
#pragma GCC unroll 2
                for (int s = 0; s < STRIP; s++) whole[r][s].add(weights[s], x);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            floats scale = same(scales[r * a->scale_stride + block * PER / BLOCK]);
            int32_t correction = corrections[r * a->sum_stride + block];
#pragma GCC unroll 2
            for (int s = 0; s < STRIP; s++) {
                floats sum = V(cvtepi32_ps)(whole[r][s].end(OFFSETS ? 0 : correction));
                found[r][s] = V(fmadd_ps)(sum, scale * by[s], found[r][s]);
                if (OFFSETS) found[r][s] = V(fnmadd_ps)(same(as_float(correction)), offsets[s], found[r][s]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int s = 0; s < STRIP; s++) sums[r][s] = found[r][s];
}

template <int ROWS, int PER, int BITS, bool OFFSETS>
static void rows(const Activations *a, long row, const Panel *panel, long inputs, float *to, long stride, long outputs,
                 Ahead *ahead) {
    floats sums[ROWS][STRIP];
    tile<ROWS, PER, BITS, OFFSETS>(a, row, panel, inputs, sums, ahead);
    for (int r = 0; r < ROWS; r++, to += stride)
        for (int s = 0; s < STRIP; s++) store_some(to + s * LANES, sums[r][s], outputs - s * LANES);
}

/* So many rows, ROWS at most. */
template <int ROWS, int PER, int BITS, bool OFFSETS>
ALWAYS void few_rows(long count, const Activations *a, long row, const Panel *panel, long inputs, float *to,
                     long stride, long outputs, Ahead *ahead) {
    if (count == ROWS) rows<ROWS, PER, BITS, OFFSETS>(a, row, panel, inputs, to, stride, outputs, ahead);
    else if constexpr (ROWS > 1)
        few_rows<ROWS - 1, PER, BITS, OFFSETS>(count, a, row, panel, inputs, to, stride, outputs, ahead);
}

/* Rows first to last, times a panel, to as many of its outputs as there are. */
template <int PER, int BITS, bool OFFSETS>
static void multiply(const Activations *a, long first, long last, const Panel *panel, long inputs, float *to,
                     long stride, long outputs, Ahead *ahead) {
    while (first < last) {
        long tiles = (last - first + TILE - 1) / TILE, count = (last - first + tiles - 1) / tiles;
        few_rows<TILE, PER, BITS, OFFSETS>(count, a, first, panel, inputs, to + first * stride, stride, outputs, ahead);
        first += count;
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

/* A single row, times LANES outputs, to as many as there are. */
template <class Weights>
static void single(const uint8_t *from, long step, const Activations *a, long inputs, float *to, long outputs,
                   Ahead *ahead) {
    Single<Weights> row;
    row.values = a->values, row.scales = a->scales, row.corrections = a->sums, row.ahead = ahead;
    row.sum = same(0);
    Weights::read(outputs_from(from, step), inputs, row);
    store_some(to, row.sum, outputs);
}

template <class W> static constexpr Kind kind_for() {
    return {W::TYPE, W::REPACKED, W::INPUTS,  W::BYTES,  W::GROUP,
            W::PER,  W::ZERO,     W::OFFSETS, unpack<W>, multiply<W::PER, W::BITS, W::OFFSETS>,
            single<W>};
}

static const Kind kinds[] = {kind_for<InFileQ8_0>(), kind_for<InFileQ5_0>(),   kind_for<InFileQ4_0>(),
                             kind_for<InFileQ4_K>(), kind_for<InFileQ5_K>(),   kind_for<InFileQ6_K>(),
                             kind_for<RepackedQ4_0>(), kind_for<RepackedQ4_K>()};

static const Level level = {NAME, LANES, SIDE, TILE, sizeof kinds / sizeof *kinds, kinds, quantize};

#undef NAME
#undef LANES
#undef VNNI
#undef V
