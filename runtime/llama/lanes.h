/* The vectors that products.h computes with, of one level of CPU: LANES numbers of 32 bits. VNNI: whether the CPU
multiplies bytes and adds up each four of the products at once. Included by products.cpp within a namespace. */

#if LANES == 16
#define V(name) _mm512_##name
typedef __m512i bytes;
typedef __m512 floats;
#else
#define V(name) _mm256_##name
typedef __m256i bytes;
typedef __m256 floats;
#endif

typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t shorts __attribute__((vector_size(2 * 2 * LANES)));

ALWAYS bytes same_byte(int value) { return V(set1_epi8)((char)value); }

ALWAYS bytes same_word(int32_t value) { return V(set1_epi32)(value); }

ALWAYS floats same(float value) { return V(set1_ps)(value); }

ALWAYS bytes left16(bytes x, int by) { return (bytes)((shorts)x << by); }

ALWAYS bytes right16(bytes x, int by) { return (bytes)((shorts)x >> by); }

ALWAYS bytes left32(bytes x, int by) { return (bytes)((words)x << by); }

ALWAYS bytes right32(bytes x, int by) { return (bytes)((words)x >> by); }

/* Of the last byte of each number, its sign kept. */
ALWAYS floats signed_byte(bytes x) { return V(cvtepi32_ps)((bytes)((ints)x >> 24)); }

ALWAYS bytes low_nibbles(bytes x) { return x & same_byte(15); }

ALWAYS bytes high_nibbles(bytes x) { return right16(x, 4) & same_byte(15); }

ALWAYS __m128i bytes_at(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

/* The weights of LANES outputs, which lie at a step from each other. */
struct Outputs {
    const uint8_t *at[LANES / 4]; /* of every fourth */
    long step, three;             /* once and three times */
};

ALWAYS Outputs outputs_from(const uint8_t *first, long step) {
    Outputs found = {{}, step, 3 * step};
    for (int i = 0; i < LANES / 4; i++) found.at[i] = first + 4 * i * step;
    return found;
}

/* So many bytes further. */
ALWAYS void pass(Outputs *from, long count) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES / 4; i++) from->at[i] += count;
}

/* 16 bytes of each output, those of each fourth output in one vector. */
ALWAYS bytes every_fourth(const Outputs *from, long place) {
#if LANES == 16
    bytes found = _mm512_castsi128_si512(bytes_at(from->at[0] + place));
    found = _mm512_mask_broadcast_i32x4(found, 0x00f0, bytes_at(from->at[1] + place));
    found = _mm512_mask_broadcast_i32x4(found, 0x0f00, bytes_at(from->at[2] + place));
    return _mm512_mask_broadcast_i32x4(found, 0xf000, bytes_at(from->at[3] + place));
#else
    return _mm256_set_m128i(bytes_at(from->at[1] + place), bytes_at(from->at[0] + place));
#endif
}

#if LANES == 16
/* 32 bytes of each. */
ALWAYS bytes both(const uint8_t *first, const uint8_t *second) {
    bytes found = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)first));
    return _mm512_inserti64x4(found, _mm256_loadu_si256((const __m256i *)second), 1);
}
#endif

/* Four vectors of numbers, those of the first and so on of each four: of each 128 bits by itself. */
ALWAYS void turn_fours(const bytes rows[4], bytes to[4]) {
    bytes low = V(unpacklo_epi32)(rows[0], rows[1]), high = V(unpackhi_epi32)(rows[0], rows[1]);
    bytes low2 = V(unpacklo_epi32)(rows[2], rows[3]), high2 = V(unpackhi_epi32)(rows[2], rows[3]);
    to[0] = V(unpacklo_epi64)(low, low2);
    to[1] = V(unpackhi_epi64)(low, low2);
    to[2] = V(unpacklo_epi64)(high, high2);
    to[3] = V(unpackhi_epi64)(high, high2);
}

/* The same as four vectors of what all outputs have of each four bytes. */
ALWAYS void turn(const Outputs *from, int at, bytes to[4]) {
    bytes rows[4] = {every_fourth(from, at), every_fourth(from, at + from->step),
                     every_fourth(from, at + 2 * from->step), every_fourth(from, at + from->three)};
    turn_fours(rows, to);
}

/* Eight such vectors, of 32 bytes: in half as many loads where four outputs do not fill a vector. */
ALWAYS void turn_32(const Outputs *from, int at, bytes to[8]) {
#if LANES == 16
    bytes half[2][4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const uint8_t *first = from->at[2 * i] + at, *second = from->at[2 * i + 1] + at;
        bytes rows[4] = {both(first, second), both(first + from->step, second + from->step),
                         both(first + 2 * from->step, second + 2 * from->step),
                         both(first + from->three, second + from->three)};
        turn_fours(rows, half[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        to[i] = _mm512_shuffle_i32x4(half[0][i], half[1][i], 0x88);
        to[4 + i] = _mm512_shuffle_i32x4(half[0][i], half[1][i], 0xdd);
    }
#else
    turn(from, at, to);
    turn(from, at + 16, to + 4);
#endif
}

/* The same of groups of eight outputs, which lie eight bytes of each after the other: 16 bytes from `at` on. */
ALWAYS void take(const Outputs *from, int at, bytes to[4]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
#if LANES == 16
        const bytes even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const bytes odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        bytes first = _mm512_loadu_si512(from->at[0] + at + 64 * i);
        bytes second = _mm512_loadu_si512(from->at[2] + at + 64 * i);
        to[2 * i] = _mm512_permutex2var_epi32(first, even, second);
        to[2 * i + 1] = _mm512_permutex2var_epi32(first, odd, second);
#else
        floats first = _mm256_loadu_ps((const float *)(from->at[0] + at + 64 * i));
        floats second = _mm256_loadu_ps((const float *)(from->at[0] + at + 64 * i + 32));
        to[2 * i] = _mm256_permute4x64_epi64((bytes)_mm256_shuffle_ps(first, second, 0x88), 0xd8);
        to[2 * i + 1] = _mm256_permute4x64_epi64((bytes)_mm256_shuffle_ps(first, second, 0xdd), 0xd8);
#endif
    }
}

/* Eight halves of each of those groups. */
ALWAYS floats halves_of_groups(const Outputs *from, int at) {
#if LANES == 16
    return _mm512_cvtph_ps(_mm256_set_m128i(bytes_at(from->at[2] + at), bytes_at(from->at[0] + at)));
#else
    return _mm256_cvtph_ps(bytes_at(from->at[0] + at));
#endif
}

/* The lower half of each number, a half. */
ALWAYS floats low_halves(bytes x) {
#if LANES == 16
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x));
#else
    bytes packed = _mm256_packus_epi32(x & same_word(0xffff), x);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#endif
}

/* Byte `place` of each number. */
ALWAYS floats byte_of(bytes x, int place) { return V(cvtepi32_ps)(right32(x, 8 * place) & same_word(255)); }

/* So many bytes, as floats. */
ALWAYS floats wide_bytes(const uint8_t *from) { return V(cvtepi32_ps)(V(cvtepu8_epi32)(bytes_at(from))); }

/* Numbers from -128 to 127 as bytes. */
ALWAYS void store_bytes(int8_t *to, bytes x) {
#if LANES == 16
    _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(x));
#else
    bytes packed = _mm256_packs_epi16(_mm256_packs_epi32(x, x), x);
    _mm_storel_epi64((__m128i *)to, _mm256_castsi256_si128(
        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4))));
#endif
}

/* As many as there are. */
ALWAYS void store_some(float *to, floats x, long count) {
    if (count >= LANES) V(storeu_ps)(to, x);
    else for (long lane = 0; lane < count; lane++) to[lane] = x[lane];
}

ALWAYS floats larger(floats a, floats b) { return V(max_ps)(a, b); }

ALWAYS floats size_of(floats x) { return (floats)((bytes)x & same_word(0x7fffffff)); }

ALWAYS float largest(floats x) {
#if LANES == 16
    return _mm512_reduce_max_ps(x);
#else
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
#endif
}

ALWAYS int32_t total(bytes x) {
#if LANES == 16
    return _mm512_reduce_add_epi32(x);
#else
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
#endif
}

/* Sums of products of weights, bytes of so many bits, and fours of a row's inputs, to which the correction belongs. */
#if VNNI
enum { ZERO_OF_BYTES = 128 };

template <int BITS> struct Sum {
    bytes found;

    ALWAYS_IN void begin(int32_t correction) { found = same_word(correction); }
    ALWAYS_IN void add(bytes weights, bytes four) {
#if LANES == 16
        found = _mm512_dpbusd_epi32(found, weights, four);
#else
        found = _mm256_dpbusd_avx_epi32(found, weights, four);
#endif
    }
    ALWAYS_IN bytes end(int32_t) const { return found; }
};
#else
enum { ZERO_OF_BYTES = 0 };

/* Added up here and now: GCC would rather multiply first, and run out of registers. */
ALWAYS void keep(bytes &sum) { asm("" : "+x"(sum)); }

ALWAYS bytes add_pairs(bytes sum, bytes pairs, int by) {
    return V(add_epi32)(sum, V(madd_epi16)(pairs, V(set1_epi16)((short)by)));
}

/* Two products fit into 16 bits, and so do as many such pairs as leave the sum below 2^15: rows have no more than 127
in a byte. */
template <int BITS> struct Sum {
    enum { PAIRS = 32767 / (2 * 127 * ((1 << BITS) - 1)) };
    bytes found, pairs;
    int count;

    ALWAYS_IN void begin(int32_t) { found = pairs = bytes{}, count = 0; }
    ALWAYS_IN void add(bytes weights, bytes four) {
        pairs = V(add_epi16)(pairs, V(maddubs_epi16)(weights, four));
        keep(pairs);
        if (++count % PAIRS == 0) found = add_pairs(found, pairs, 1), pairs = bytes{};
    }
    ALWAYS_IN bytes end(int32_t correction) const {
        bytes all = count % PAIRS ? add_pairs(found, pairs, 1) : found;
        return correction ? V(add_epi32)(all, same_word(correction)) : all;
    }
};

/* Weights with a sign, which goes over to the row. */
template <> struct Sum<8> {
    bytes found;

    ALWAYS_IN void begin(int32_t) { found = bytes{}; }
    ALWAYS_IN void add(bytes weights, bytes four) {
        found = add_pairs(found, V(maddubs_epi16)(V(abs_epi8)(weights), V(sign_epi8)(four, weights)), 1);
        keep(found);
    }
    ALWAYS_IN bytes end(int32_t) const { return found; }
};
#endif
