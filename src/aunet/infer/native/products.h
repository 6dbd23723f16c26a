// Linear maps of few rows, by panels of 16 outputs.

#pragma once

#include <cstdint>

#include "model.h"
#include "team.h"
#include "wide.h"

namespace {

constexpr int64_t PANEL = 2 * WIDE;

int64_t panels(const Linear &map) { return (map.outputs + PANEL - 1) / PANEL; }

// ROWS positions times PANELS panels; put(row, first output, two vectors of results).
template <int ROWS, int PANELS, typename Weight, typename Put>
INLINE void tile(const float *const *x, const Linear &map, int64_t panel, int64_t row, Put put) {
    const int64_t inputs = map.inputs, size = inputs * PANEL;
    const Weight *weight = static_cast<const Weight *>(map.weight) + panel * size;
    Wide y[ROWS][PANELS][2];
    for (auto &of_row : y)
        for (auto &of_panel : of_row) of_panel[0] = of_panel[1] = Wide{};
    for (int64_t k = 0; k < inputs; k++) {
        Wide w[PANELS][2];
        for (int p = 0; p < PANELS; p++)
            for (int half = 0; half < 2; half++) {
                w[p][half] = load(weight + p * size + k * PANEL + half * WIDE);
                if (ROWS > 1) IN_REGISTER(w[p][half]);
            }
        for (int r = 0; r < ROWS; r++)
            for (int p = 0; p < PANELS; p++)
                for (int half = 0; half < 2; half++) y[r][p][half] += x[r][k] * w[p][half];
    }
    for (int p = 0; p < PANELS; p++) {
        const int64_t first = (panel + p) * PANEL;
        for (int r = 0; r < ROWS; r++) {
            Wide result[2] = {y[r][p][0], y[r][p][1]};  // a copy: what is pointed to does not stay in registers
            if (map.scale)
                for (int half = 0; half < 2; half++) result[half] *= load(map.scale + first + half * WIDE);
            put(row + r, first, result);
        }
    }
}

template <int ROWS, typename Weight, typename Put>
__attribute__((noinline)) void rows_by_panels(const float *const *x, const Linear &map, Range some, int64_t row, Put put) {
    constexpr int PANELS = ROWS == 1 ? 4 : ROWS == 2 ? 2 : 1;  // eight sums at least hide how long each one takes
    int64_t p = some.begin;
    for (; p + PANELS <= some.end; p += PANELS) tile<ROWS, PANELS, Weight>(x, map, p, row, put);
    for (; p < some.end; p++) tile<ROWS, 1, Weight>(x, map, p, row, put);
}

template <typename Weight, typename Put>
void multiply_as(const float *const *x, int64_t rows, const Linear &map, Range some, Put put) {
    if (rows == 1) return rows_by_panels<1, Weight>(x, map, some, 0, put);
    if (rows == 2) return rows_by_panels<2, Weight>(x, map, some, 0, put);
    for (int64_t p = some.begin; p < some.end; p++) {
        const Range one = {p, p + 1};
        int64_t t = 0;
        for (; rows - t >= 6 && rows - t != 8; t += 6) rows_by_panels<6, Weight>(x + t, map, one, t, put);
        for (; rows - t >= 4; t += 4) rows_by_panels<4, Weight>(x + t, map, one, t, put);
        for (; rows - t >= 2; t += 2) rows_by_panels<2, Weight>(x + t, map, one, t, put);
        if (t < rows) rows_by_panels<1, Weight>(x + t, map, one, t, put);
    }
}

// Some panels of a linear map of all rows.
template <typename Put>
void multiply(const float *const *x, int64_t rows, const Linear &map, Range some, Put put) {
    if (map.kind == 0) multiply_as<float>(x, rows, map, some, put);
    if (map.kind == 1) multiply_as<Half>(x, rows, map, some, put);
    if (map.kind == 2) multiply_as<int8_t>(x, rows, map, some, put);
}

// Where results go: up to 16 numbers of a row of `stride`, of which `outputs` exist.
struct Place {
    float *out;
    int64_t stride, outputs;

    template <typename Combine>
    INLINE void each(int64_t row, int64_t first, const Wide *y, Combine combine) const {
        float *to = out + row * stride + first;
        if (first + PANEL <= outputs) {
            for (int half = 0; half < 2; half++) store(to + half * WIDE, combine(load(to + half * WIDE), y[half]));
            return;
        }
        for (int64_t n = 0; n < outputs - first; n++) to[n] = combine(Wide{} + to[n], Wide{} + y[n / WIDE][n % WIDE])[0];
    }
    INLINE void put(int64_t row, int64_t first, const Wide *y) const {
        each(row, first, y, [](Wide, Wide now) { return now; });
    }
    INLINE void add(int64_t row, int64_t first, const Wide *y) const {
        each(row, first, y, [](Wide before, Wide now) { return before + now; });
    }
    INLINE void times(int64_t row, int64_t first, const Wide *y) const {
        each(row, first, y, [](Wide before, Wide now) { return before * now; });
    }
};

}  // namespace
