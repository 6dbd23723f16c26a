// What a block does beside its linear maps: norms, rotations, silu, attention to the kept positions.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "wide.h"

namespace {

void rms_norm(const float *x, const float *weight, float eps, int64_t dim, float *out) {
    const int64_t whole = dim / WIDE * WIDE;
    Wide squares = {};
    for (int64_t k = 0; k < whole; k += WIDE) squares += load(x + k) * load(x + k);
    float total = sum(squares);
    for (int64_t k = whole; k < dim; k++) total += x[k] * x[k];
    const float scale = 1.0f / std::sqrt(total / dim + eps);
    for (int64_t k = 0; k < dim; k++) out[k] = x[k] * scale * weight[k];
}

// Turn the pairs (i, i + K / 2) of a head.
void rotate(float *head, const float *cos, const float *sin, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i] + a * sin[i];
    }
}

// silu of some numbers, in place.
void silu(float *x, int64_t count) {
    int64_t n = 0;
    for (; n + WIDE <= count; n += WIDE) {
        const Wide wide = load(x + n);
        store(x + n, wide / (1.0f + exponential(-wide)));
    }
    for (; n < count; n++) x[n] = x[n] / (1.0f + exponential(-x[n]));
}

float dot(const float *a, const float *b, int64_t count) {
    const int64_t whole = count / WIDE * WIDE;
    Wide sums = {};
    for (int64_t k = 0; k < whole; k += WIDE) sums += load(a + k) * load(b + k);
    float total = sum(sums);
    for (int64_t k = whole; k < count; k++) total += a[k] * b[k];
    return total;
}

// Products of a query with some keys, [count, K], each summed up like `dot`.
void score(const float *query, const float *key, int64_t count, int64_t head_dim, float scale, float *scores) {
    const int64_t whole = head_dim / WIDE * WIDE;
    int64_t i = 0;
    for (; whole == head_dim && i + WIDE <= count; i += WIDE, key += WIDE * head_dim) {
        Wide partial[WIDE] = {};
        for (int64_t k = 0; k < whole; k += WIDE) {
            const Wide q = load(query + k);
            for (int j = 0; j < WIDE; j++) partial[j] += q * load(key + j * head_dim + k);
        }
        store(scores + i, sums(partial) * scale);
    }
    for (; i < count; i++, key += head_dim) scores[i] = dot(query, key, head_dim) * scale;
}

// Adds weighted values [count, K] to `out`; neighbours in two sums, of CHUNKS times eight numbers at once.
template <int CHUNKS>
void mix_chunks(const float *weight, const float *value, int64_t count, int64_t head_dim, float *out) {
    Wide even[CHUNKS], odd[CHUNKS] = {};
    for (int c = 0; c < CHUNKS; c++) even[c] = load(out + c * WIDE);
    int64_t i = 0;
    for (; i + 2 <= count; i += 2, value += 2 * head_dim)
        for (int c = 0; c < CHUNKS; c++) {
            even[c] += weight[i] * load(value + c * WIDE);
            odd[c] += weight[i + 1] * load(value + head_dim + c * WIDE);
        }
    if (i < count)
        for (int c = 0; c < CHUNKS; c++) even[c] += weight[i] * load(value + c * WIDE);
    for (int c = 0; c < CHUNKS; c++) store(out + c * WIDE, even[c] + odd[c]);
}

void mix(const float *weight, const float *value, int64_t count, int64_t head_dim, float *out) {
    int64_t k = 0;
    for (; k + 4 * WIDE <= head_dim; k += 4 * WIDE) mix_chunks<4>(weight, value + k, count, head_dim, out + k);
    for (; k + WIDE <= head_dim; k += WIDE) mix_chunks<1>(weight, value + k, count, head_dim, out + k);
    for (; k < head_dim; k++)
        for (int64_t i = 0; i < count; i++) out[k] += weight[i] * value[i * head_dim + k];
}

// One query over the kept positions `begin` .. `end` - 1; `keys(page)` and `values(page)` are [slots, K].
template <typename Keys, typename Values>
void attend(const float *query, int64_t begin, int64_t end, int64_t slots, int64_t head_dim, Keys keys, Values values,
            std::vector<float> &scores, float *out) {
    const float scale = 1.0f / std::sqrt(float(head_dim));
    const int64_t count = end - begin, room = (count + WIDE - 1) / WIDE * WIDE;
    if (int64_t(scores.size()) < room) scores.resize(2 * room);
    for (int64_t position = begin; position < end;) {
        const int64_t page = position / slots, stop = std::min(end, (page + 1) * slots);
        const float *key = keys(page) + (position - page * slots) * head_dim;
        score(query, key, stop - position, head_dim, scale, &scores[position - begin]);
        position = stop;
    }
    const float best = *std::max_element(scores.begin(), scores.begin() + count);
    for (int64_t i = count; i < room; i++) scores[i] = -INFINITY;
    Wide totals = {};
    for (int64_t i = 0; i < room; i += WIDE) {
        Wide weight = exponential(load(&scores[i]) - best);
        if (i + WIDE > count)
            for (int64_t j = count - i; j < WIDE; j++) weight[j] = 0;
        totals += weight;
        store(&scores[i], weight);
    }
    const float inverse = 1.0f / sum(totals);
    std::fill(out, out + head_dim, 0.0f);
    for (int64_t position = begin; position < end;) {
        const int64_t page = position / slots, stop = std::min(end, (page + 1) * slots);
        const float *first = values(page) + (position - page * slots) * head_dim;
        mix(&scores[position - begin], first, stop - position, head_dim, out);
        position = stop;
    }
    for (int64_t k = 0; k < head_dim; k++) out[k] *= inverse;
}

}  // namespace
