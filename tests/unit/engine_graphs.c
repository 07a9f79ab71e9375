#include "engine_graphs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "ops/ops.h"

#include <cmocka.h>
#undef fail /* cmocka's macro hides base/status.h's function */

void expect_ok(rung_status st, const rung_error *err)
{
    if (st != RUNG_OK)
        print_error("%s\n", err->message);
    assert_int_equal(st, RUNG_OK);
}

builder build_begin(uint64_t seed)
{
    builder b = {0};
    assert_int_equal(graph_create(op_find, &b.g, NULL), RUNG_OK);
    rng_seed(&b.r, seed);
    b.g->opsets = arena_zero(b.g->mem, 1, sizeof *b.g->opsets);
    assert_non_null(b.g->opsets);
    b.g->opsets[0] = (opset){"", 13};
    b.g->n_opsets = 1;
    b.g->inputs = arena_zero(b.g->mem, 8, sizeof(int));
    b.g->outputs = arena_zero(b.g->mem, 8, sizeof(int));
    return b;
}

int build_input(builder *b, const char *name, int rank, const int64_t *dims)
{
    const int v = graph_add_value(b->g, name, RUNG_F32, rank, dims);
    assert_true(v >= 0);
    b->g->values[v].is_input = true;
    b->g->inputs[b->g->n_inputs++] = v;
    return v;
}

void build_output(builder *b, int v)
{
    b->g->values[v].is_output = true;
    b->g->outputs[b->g->n_outputs++] = v;
}

static int add_constant(builder *b, dtype type, int rank, const int64_t *dims, void *data)
{
    tensor t = {.type = type, .rank = rank, .data = data};
    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    const int v = graph_add_constant(b->g, "c", &t);
    assert_true(v >= 0);
    return v;
}

int build_weights(builder *b, int rank, const int64_t *dims)
{
    const size_t n = dims_count(rank, dims);
    float *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(2 * rng_uniform(&b->r) - 1);
    const int v = add_constant(b, RUNG_F32, rank, dims, w);
    free(w);
    return v;
}

int build_scalar(builder *b, float x)
{
    return add_constant(b, RUNG_F32, 0, NULL, &x);
}

int build_node(builder *b, const char *op, const int *in, node **made)
{
    int n_in = 0;
    while (in[n_in] >= 0)
        n_in++;
    const int out = graph_add_value(b->g, op, RUNG_UNDEFINED, -1, NULL);
    const int n = graph_add_node(b->g, op, "", "", in, n_in, &out, 1);
    assert_true(out >= 0 && n >= 0);
    if (made)
        *made = &b->g->nodes[n];
    return out;
}

static int pair_around(builder *b, int v, float scale, int z)
{
    const int s = build_scalar(b, scale);
    const int q = build_node(b, "QuantizeLinear", (int[]){v, s, z, -1}, NULL);
    return build_node(b, "DequantizeLinear", (int[]){q, s, z, -1}, NULL);
}

int build_pair(builder *b, int v, float scale, int zero)
{
    uint8_t z = (uint8_t)zero;
    return pair_around(b, v, scale, add_constant(b, RUNG_U8, 0, NULL, &z));
}

int build_pair_int8(builder *b, int v, float scale, int zero)
{
    int8_t z = (int8_t)zero;
    return pair_around(b, v, scale, add_constant(b, RUNG_I8, 0, NULL, &z));
}

/* Int8 weights with one scale per channel, behind DQ. */
static int quantized_weights(builder *b, const int64_t *dims, float *scales)
{
    const size_t n = dims_count(4, dims);
    int8_t *w = malloc(n);
    for (size_t i = 0; i < n; i++)
        w[i] = (int8_t)((int)rng_below(&b->r, 255) - 127);
    for (int64_t c = 0; c < dims[0]; c++)
        scales[c] = (float)(0.002 + 0.004 * rng_uniform(&b->r));
    const int q = add_constant(b, RUNG_I8, 4, dims, w);
    const int s = add_constant(b, RUNG_F32, 1, dims, scales);
    free(w);
    node *dq = NULL;
    const int v = build_node(b, "DequantizeLinear", (int[]){q, s, -1}, &dq);
    assert_int_equal(graph_set_int(b->g, dq, "axis", 0, NULL), RUNG_OK);
    return v;
}

static int quantized_bias(builder *b, int64_t n, const float *w_scales)
{
    int32_t *bias = malloc((size_t)n * sizeof *bias);
    float *scales = malloc((size_t)n * sizeof *scales);
    for (int64_t c = 0; c < n; c++) {
        bias[c] = (int32_t)rng_below(&b->r, 4000) - 2000;
        scales[c] = ACTIVATION_SCALE * w_scales[c];
    }
    const int q = add_constant(b, RUNG_I32, 1, &n, bias);
    const int s = add_constant(b, RUNG_F32, 1, &n, scales);
    free(bias);
    free(scales);
    node *dq = NULL;
    const int v = build_node(b, "DequantizeLinear", (int[]){q, s, -1}, &dq);
    assert_int_equal(graph_set_int(b->g, dq, "axis", 0, NULL), RUNG_OK);
    return v;
}

int build_conv(builder *b, int x, int in_c, int out_c, int k, bool quantized)
{
    const int64_t dims[4] = {out_c, in_c, k, k};
    const int64_t pads[4] = {k / 2, k / 2, k / 2, k / 2};
    int w, bias;
    if (quantized) {
        float *scales = malloc((size_t)out_c * sizeof *scales);
        w = quantized_weights(b, dims, scales);
        bias = quantized_bias(b, out_c, scales);
        free(scales);
    } else {
        w = build_weights(b, 4, dims);
        bias = build_weights(b, 1, dims);
    }
    node *n = NULL;
    const int y = build_node(b, "Conv", (int[]){x, w, bias, -1}, &n);
    assert_int_equal(graph_set_ints(b->g, n, "pads", pads, 4, NULL), RUNG_OK);
    return y;
}

graph *build_end(builder *b)
{
    rung_error err;
    expect_ok(graph_sort(b->g, &err), &err);
    expect_ok(graph_verify(b->g, &err), &err);
    return b->g;
}
