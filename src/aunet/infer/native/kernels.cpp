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
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <unistd.h>
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

struct Range {
    int64_t begin, end;
};

// Threads that work on one thing together. They look out for each other for a moment and then sleep: on a machine that
// is busy with other things, a thread that only looks out keeps the one that it waits for from running.
class Team {
  public:
    struct Member {
        Team *team;
        int64_t index, count;

        // The part of 0 .. total - 1 that this thread owns.
        Range own(int64_t total) const { return {total * index / count, total * (index + 1) / count}; }

        // Until all threads have come here.
        void meet() const {
            if (count > 1) team->meet();
        }
    };

    // Threads that are worth waking for so many products.
    static int worthwhile(int threads, int64_t products) { return products < ALONE ? 1 : threads; }

    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { serve(i); });
    }

    ~Team() {
        work_ = nullptr;
        job_.fetch_add(1);
        job_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    template <typename Work>
    void run(const Work &work) {
        work_ = [&work, this](int index) { work(Member{this, index, size_}); };
        job_.fetch_add(1);
        job_.notify_all();
        work_(0);
        meet();
    }

    // The team of this process, of so many threads; one caller at a time.
    template <typename Work>
    static void together(int threads, const Work &work) {
        if (threads == 1) return work(Member{nullptr, 0, 1});
        static std::mutex one;
        static Team *team = nullptr;
        static pid_t process = 0;
        const std::lock_guard<std::mutex> lock(one);
        if (process != getpid()) team = nullptr;  // not ended: its threads did not come along in the fork
        process = getpid();
        if (!team || team->size_ != threads) {
            delete team;
            team = new Team(threads);
        }
        team->run(work);
    }

  private:
    void serve(int index) {
        for (uint32_t done = 0;; done++) {
            await(job_, done, BETWEEN_CALLS);
            if (!work_) return;
            work_(index);
            meet();
        }
    }

    void meet() {
        const uint32_t now = meetings_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            meetings_.fetch_add(1);  // sequentially consistent: a thread that is about to sleep must not miss it
            meetings_.notify_all();
        } else {
            await(meetings_, now, BETWEEN_PARTS);
        }
    }

    // Until a counter is no longer `value`.
    static void await(const std::atomic<uint32_t> &counter, uint32_t value, int looks) {
        for (int i = 0; i < looks; i++)
            if (counter.load(std::memory_order_acquire) != value) return;
        while (counter.load(std::memory_order_acquire) == value) counter.wait(value, std::memory_order_acquire);
    }

    // Some 10 us each. No `pause` between the looks: a virtual machine may be halted for it, which takes far longer.
    static constexpr int BETWEEN_CALLS = 20000, BETWEEN_PARTS = 20000;

    static constexpr int64_t ALONE = 1 << 20;

    const int size_;
    std::function<void(int)> work_;  // none: end
    std::atomic<uint32_t> job_{0}, meetings_{0};
    std::atomic<int> arrived_{0};
    std::vector<std::thread> threads_;  // the last one: they use all of the above as soon as they begin
};

}  // namespace

extern "C" {

struct Linear {
    const void *weight;  // [panels, inputs, 16], the last outputs of the last panel without a meaning
    const float *scale;  // of each output, for 8-bit weights; as long as the panels
    int64_t outputs, inputs, kind;  // 0: float, 1: bfloat16, 2: 8 bits
};

struct Block {
    const float *attention_norm, *ffn_norm;
    const float *q_norm, *k_norm;  // of the width of a head; null: queries and keys are not normalised
    Linear qkv;  // of one key/value head after the other: its queries, its key, its value
    Linear out, gate, up, down;
};

struct Stack {
    const Block *blocks;
    int64_t layers, first_layer, dim, heads, kv_heads, head_dim, ffn_dim, window, slots;
    const float *cosines, *sines;  // [positions, K / 2]
    float eps;
};

struct Stage {  // but the trunk
    Stack down, up;
    const float *pool_norm, *upsample_norm;
    Linear pool, upsample;  // the latter of one offset after the other
    int64_t offsets, kind;  // 0: multilinear, 1: repeat, 2: simple
    const float *offset_vectors;  // [offsets, D], what `repeat` adds
};

struct Lookup {
    const float *rows;  // of all tables, one below the other
    int64_t tables;     // 0: none
    int64_t unknown;    // the row of n-grams that add nothing, -1: none
};

struct Model {
    const Stage *stages;
    int64_t depth;
    Stack trunk;
    const Lookup *lookups;  // of every stage
    const float *embedding, *norm;
    Linear head;
};

}  // extern "C"

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
