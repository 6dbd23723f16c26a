// Eight numbers at a time.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t WIDE = 8;
typedef float Wide __attribute__((vector_size(4 * WIDE)));
typedef int32_t WideInt __attribute__((vector_size(4 * WIDE)));
typedef uint32_t WideBits __attribute__((vector_size(4 * WIDE)));
typedef uint16_t WideHalf __attribute__((vector_size(2 * WIDE)));
typedef int8_t WideByte __attribute__((vector_size(WIDE)));
typedef int64_t ByteLane __attribute__((vector_size(2 * WIDE)));

// A compiler that knows a value to be in memory loads it anew for each product; this keeps it in a register.
#ifdef __AVX2__
#define IN_REGISTER(x) __asm__("" : "+x"(x))
#else
#define IN_REGISTER(x) (void)(x)
#endif
#define INLINE inline __attribute__((always_inline))
// Before version 12, GCC has this under another name and wants the places as a vector.
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, WideInt{__VA_ARGS__})
#endif

template <typename To, typename From>
To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

Wide load(const float *p) {
    Wide x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

void store(float *p, Wide x) { std::memcpy(p, &x, sizeof x); }

struct Half {  // bfloat16: the upper half of a float
    uint16_t bits;
};

Wide load(const Half *p) {
    WideHalf half;
    std::memcpy(&half, p, sizeof half);
    return bits_of<Wide>(__builtin_convertvector(half, WideBits) << 16);
}

Wide load(const int8_t *p) {
    WideByte byte;
    std::memcpy(&byte, p, sizeof byte);
#ifdef __AVX2__
    return __builtin_convertvector((WideInt)_mm256_cvtepi8_epi32((__m128i)(ByteLane){bits_of<int64_t>(byte), 0}), Wide);
#else
    return __builtin_convertvector(__builtin_convertvector(byte, WideInt), Wide);
#endif
}

// The sum of eight numbers; `sums` makes eight such sums in the same order at once.
float sum(Wide x) { return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])); }

INLINE Wide sums(const Wide *x) {
    Wide pairs[4], fours[2];
    for (int i = 0; i < 4; i++)
        pairs[i] = SHUFFLED(x[2 * i], x[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                   SHUFFLED(x[2 * i], x[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int i = 0; i < 2; i++)
        fours[i] = SHUFFLED(pairs[2 * i], pairs[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                   SHUFFLED(pairs[2 * i], pairs[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLED(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           SHUFFLED(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

// exp by 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; relative error below 2e-7, 0 far below.
Wide exponential(Wide x) {
    const Wide low = Wide{} - 87.0f, high = Wide{} + 88.0f;
    x = x < low ? low : x;
    x = x > high ? high : x;
    WideInt n = __builtin_convertvector(x * 1.44269504f + (x < 0 ? Wide{} - 0.5f : Wide{} + 0.5f), WideInt);
    Wide whole = __builtin_convertvector(n, Wide);
    Wide r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    Wide p = Wide{} + 1.9841270e-4f;
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * bits_of<Wide>((n + 127) << 23);
}

float exponential(float x) { return exponential(Wide{} + x)[0]; }

}  // namespace
