// The operations of reading for few positions on a CPU, where the time is that of reading the weights once.
//
// Shapes: T positions (rows), D width, H query heads, G key/value heads, R = H / G, K head width, F feed-forward width.
//
// A matrix is stored in panels of 16 outputs, [panels, inputs, 16], so that it streams from memory in one order and no
// sum crosses a vector. A stack of blocks is one parallel region with four barriers a block: a thread owns some
// key/value heads from their projection to their attention, and some panels of every other matrix. Every number is a
// sum in an order of its own, which does not depend on T, on the other rows, or on the number of threads: results are
// the same to the last bit whatever else is read together with them.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "wide.h"
#include "team.h"
#include "model.h"
#include "products.h"
#include "attention.h"

namespace {

// What a thread needs for itself; kept from call to call.
struct Scratch {
    std::vector<float> normed, heads, scores;
    std::vector<const float *> inputs;

    const float *const *norm(const float *x, int64_t rows, const float *weight, float eps, int64_t dim) {
        if (int64_t(normed.size()) < rows * dim) normed.resize(rows * dim);
        for (int64_t t = 0; t < rows; t++) rms_norm(x + t * dim, weight, eps, dim, &normed[t * dim]);
        return pointers(normed.data(), rows, dim);
    }

    const float *const *pointers(const float *x, int64_t rows, int64_t dim) {
        inputs.resize(rows);
        for (int64_t t = 0; t < rows; t++) inputs[t] = x + t * dim;
        return inputs.data();
    }
};

thread_local Scratch scratch;
thread_local std::vector<float> shared_attended, shared_hidden;  // of the thread that calls

// Which positions of a stage are new, row by row; the rows of a sequence follow each other.
struct Rows {
    int64_t count;
    const int64_t *level, *position;
    const int64_t *const *pages;  // addresses of the pages of the row's sequence,
    const int64_t *first_page;    // beginning with this one
    const int64_t *continues;     // whether the row before is of the same sequence
    const float *const *coarse;   // its last coarse vector before these rows,
    int64_t *offset;              // and how far behind its pool position; becomes that of the position after the row
};

// x [T, D] becomes the output of the blocks; keys and values of the T positions are kept in their pages.
void through(const Stack *stack, const Rows &of, float *x, int threads) {
    const int64_t rows = of.count, *position = of.position, *first_page = of.first_page;
    const int64_t *const *pages = of.pages;
    const float *cosines = stack->cosines, *sines = stack->sines;
    const int64_t D = stack->dim, H = stack->heads, G = stack->kv_heads, R = H / G, K = stack->head_dim;
    const int64_t F = stack->ffn_dim, S = stack->slots;
    const int64_t products = rows * stack->layers * D * (2 * (H + G) * K + 3 * F);
    shared_attended.resize(std::max<size_t>(shared_attended.size(), rows * H * K));
    shared_hidden.resize(std::max<size_t>(shared_hidden.size(), rows * F));
    float *attended = shared_attended.data(), *hidden = shared_hidden.data();
    Team::together(Team::worthwhile(threads, products), [=](Team::Member member) {
        const Range groups = member.own(G);
        const int64_t width = (R + 2) * K, group_panels = (width + PANEL - 1) / PANEL;
        std::vector<float> &heads = scratch.heads;
        for (int64_t l = 0; l < stack->layers; l++) {
            const Block &block = stack->blocks[l];
            const float *const *normed = scratch.norm(x, rows, block.attention_norm, stack->eps, D);
            heads.resize(std::max<size_t>(heads.size(), rows * width));
            for (int64_t g = groups.begin; g < groups.end; g++) {
                const Place group = {heads.data() - g * group_panels * PANEL, width, g * group_panels * PANEL + width};
                multiply(normed, rows, block.qkv, {g * group_panels, (g + 1) * group_panels},
                         [=](int64_t t, int64_t n, const Wide *y) { group.put(t, n, y); });
                const int64_t layer = stack->first_layer + l;
                const int64_t key_at = ((2 * layer) * G + g) * S * K, value_at = ((2 * layer + 1) * G + g) * S * K;
                for (int64_t t = 0; t < rows; t++) {
                    float *head = &heads[t * width];
                    const float *cos = cosines + position[t] * (K / 2), *sin = sines + position[t] * (K / 2);
                    for (int64_t r = 0; r <= R; r++) {
                        const float *norm = r < R ? block.q_norm : block.k_norm;
                        if (norm) rms_norm(head + r * K, norm, stack->eps, K, head + r * K);
                        rotate(head + r * K, cos, sin, K);
                    }
                    float *page = reinterpret_cast<float *>(pages[t][position[t] / S - first_page[t]]);
                    const int64_t slot = position[t] % S * K;
                    std::memcpy(page + key_at + slot, head + R * K, K * sizeof(float));
                    std::memcpy(page + value_at + slot, head + (R + 1) * K, K * sizeof(float));
                }
                for (int64_t t = 0; t < rows; t++) {
                    const auto page = [=](int64_t number) {
                        return reinterpret_cast<const float *>(pages[t][number - first_page[t]]);
                    };
                    const int64_t end = position[t] + 1;
                    const int64_t from = stack->window ? std::max<int64_t>(0, end - stack->window) : 0;
                    for (int64_t r = 0; r < R; r++)
                        attend(
                            &heads[t * width + r * K], from, end, S, K,
                            [=](int64_t number) { return page(number) + key_at; },
                            [=](int64_t number) { return page(number) + value_at; }, scratch.scores,
                            attended + t * H * K + (g * R + r) * K);
                }
            }
            member.meet();
            const Place to_x = {x, D, D}, to_hidden = {hidden, F, F};
            const Range outputs = member.own(panels(block.out)), units = member.own(panels(block.gate));
            multiply(scratch.pointers(attended, rows, H * K), rows, block.out, outputs,
                     [=](int64_t t, int64_t n, const Wide *y) { to_x.add(t, n, y); });
            member.meet();
            normed = scratch.norm(x, rows, block.ffn_norm, stack->eps, D);
            multiply(normed, rows, block.gate, units,
                     [=](int64_t t, int64_t n, const Wide *y) { to_hidden.put(t, n, y); });
            const int64_t first = units.begin * PANEL, count = std::min(units.end * PANEL, F) - first;
            for (int64_t t = 0; t < rows; t++) silu(hidden + t * F + first, count);
            multiply(normed, rows, block.up, units,
                     [=](int64_t t, int64_t n, const Wide *y) { to_hidden.times(t, n, y); });
            member.meet();
            multiply(scratch.pointers(hidden, rows, F), rows, block.down, outputs,
                     [=](int64_t t, int64_t n, const Wide *y) { to_x.add(t, n, y); });
            member.meet();
        }
    });
}

// out[t] (+)= map[choice[t]] norm(x[t]), where `choice` picks one of several maps that follow each other in memory; null
// for the first one.
void apply(const Linear &map, const float *norm, float eps, int64_t rows, const float *const *x, const int64_t *choice,
           int64_t choices, float *const *out, bool add, int threads) {
    const int64_t D = map.inputs, N = map.outputs;
    Team::together(Team::worthwhile(threads, rows * D * N), [=, &map](Team::Member member) {
        Scratch &mine = scratch;
        mine.normed.resize(std::max<size_t>(mine.normed.size(), rows * D));
        std::vector<float *> to;
        std::vector<const float *> inputs;
        const Range some = member.own(panels(map));
        for (int64_t t = 0; t < rows; t++) rms_norm(x[t], norm, eps, D, &mine.normed[t * D]);
        for (int64_t c = 0; c < choices; c++) {
            to.clear();
            inputs.clear();
            for (int64_t t = 0; t < rows; t++)
                if (!choice || choice[t] == c) {
                    to.push_back(out[t]);
                    inputs.push_back(&mine.normed[t * D]);
                }
            if (to.empty()) continue;
            Linear one = map;
            const int64_t first = c * panels(map), size = map.kind == 0 ? 4 : map.kind == 1 ? 2 : 1;
            one.weight = static_cast<const char *>(map.weight) + first * PANEL * D * size;
            if (map.scale) one.scale = map.scale + first * PANEL;
            float *const *places = to.data();
            multiply(inputs.data(), int64_t(to.size()), one, some, [=](int64_t i, int64_t n, const Wide *y) {
                const Place place = {places[i], 0, N};
                add ? place.add(0, n, y) : place.put(0, n, y);
            });
        }
    });
}

// A stage and everything below it; x[s] holds the vectors of stage s, and its outputs afterwards.
void read(const Model *model, const Rows *rows, int64_t s, float *const *x, const int64_t *const *looked_up,
          int threads) {
    const Lookup &lookup = model->lookups[s];
    const int64_t width = (s == model->depth ? model->trunk : model->stages[s].down).dim;
    for (int64_t t = 0; t < rows[s].count; t++)
        for (int64_t n = 0; n < lookup.tables; n++) {
            const int64_t index = looked_up[s][t * lookup.tables + n];
            if (index == lookup.unknown) continue;
            const float *row = lookup.rows + index * width;
            for (int64_t k = 0; k < width; k++) x[s][t * width + k] += row[k];
        }
    if (s == model->depth) return through(&model->trunk, rows[s], x[s], threads);
    const Stage &stage = model->stages[s];
    const Rows &of = rows[s];
    const int64_t D = stage.down.dim, E = stage.pool.outputs, P = stage.offsets;
    through(&stage.down, of, x[s], threads);
    std::vector<const float *> from;
    std::vector<float *> to;
    for (int64_t t = 0; t < of.count; t++)
        if (of.level[t] > s) {
            to.push_back(x[s + 1] + int64_t(from.size()) * E);
            from.push_back(x[s] + t * D);
        }
    if (!from.empty()) {
        apply(stage.pool, stage.pool_norm, stage.down.eps, from.size(), from.data(), nullptr, 1, to.data(), false,
              threads);
        read(model, rows, s + 1, x, looked_up, threads);
    }
    std::vector<int64_t> choice;
    int64_t units = 0;
    from.clear();
    to.clear();
    const float *source = nullptr;
    for (int64_t t = 0; t < of.count; t++) {
        int64_t offset = of.continues[t] ? of.offset[t - 1] : of.offset[t];
        if (!of.continues[t]) source = of.coarse[t];
        if (of.level[t] > s) {
            source = x[s + 1] + units++ * E;
            offset = 0;
        }
        of.offset[t] = offset + 1;
        if (stage.kind == 2 && offset > 0) continue;
        if (stage.kind == 1)
            for (int64_t k = 0; k < D; k++) x[s][t * D + k] += stage.offset_vectors[offset % P * D + k];
        choice.push_back(stage.kind == 0 ? offset % P : 0);
        from.push_back(source);
        to.push_back(x[s] + t * D);
    }
    apply(stage.upsample, stage.upsample_norm, stage.down.eps, from.size(), from.data(), choice.data(),
          stage.kind == 0 ? P : 1, to.data(), true, threads);
    through(&stage.up, of, x[s], threads);
}

}  // namespace

extern "C" {

// New positions of some sequences, as `packed`: their number T, their ids, and for every stage the number of its rows
// and the arrays of `Rows`, each of that length. x: for every stage room for [rows, D], its outputs afterwards.
// looked_up: for every stage with look-ups which rows it looks up, [rows, tables]. logits: [T, V].
void aunet_read(const Model *model, int64_t *packed, float *const *x, const int64_t *const *looked_up, float *logits,
                int threads) {
    const int64_t count = *packed++, *ids = packed;
    packed += count;
    std::vector<Rows> rows(model->depth + 1);
    for (Rows &of : rows) {
        of.count = *packed++;
        const int64_t size = of.count;
        of.level = packed;
        of.position = packed + size;
        of.pages = reinterpret_cast<const int64_t *const *>(packed + 2 * size);
        of.first_page = packed + 3 * size;
        of.continues = packed + 4 * size;
        of.coarse = reinterpret_cast<const float *const *>(packed + 5 * size);
        of.offset = packed + 6 * size;
        packed += 7 * size;
    }
    const int64_t D = model->depth ? model->stages[0].down.dim : model->trunk.dim, V = model->head.outputs;
    for (int64_t t = 0; t < count; t++) std::memcpy(x[0] + t * D, model->embedding + ids[t] * D, D * sizeof(float));
    read(model, rows.data(), 0, x, looked_up, threads);
    std::vector<const float *> from(count);
    std::vector<float *> to(count);
    for (int64_t t = 0; t < count; t++) {
        from[t] = x[0] + t * D;
        to[t] = logits + t * V;
    }
    apply(model->head, model->norm, model->trunk.eps, count, from.data(), nullptr, 1, to.data(), false, threads);
}

}  // extern "C"
