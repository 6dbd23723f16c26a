// A model as `kernels.py` describes it.

#pragma once

#include <cstdint>

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
