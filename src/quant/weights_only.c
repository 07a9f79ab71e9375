/* Weight-only quantization: integer weights behind a DequantizeLinear, float activations.
 *
 * int8: one scale per output channel (MatMul, Gemm, Conv) or per row (Gather); any opset from 13.
 * Blocked int8, int4 and uint4: one scale for `block` weights along the summed axis (for Gather
 * along the row), which is opset 21's DequantizeLinear with block_size. ONNX Runtime runs it as
 * MatMulNBits where the weight has one reader; to that end a Gemm's weight is written untransposed.
 * Scales are those of least squared error for each block (quant/blocks.h); with samples, GPTQ
 * rounds products with error feedback, AWQ rescales them before. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/edit.h"
#include "quant/parts.h"
#include "quant/rounding.h"

enum { DEFAULT_BLOCK = 32 };

typedef enum role { ROLE_NONE, ROLE_MATRIX, ROLE_TRANSPOSED, ROLE_TABLE, ROLE_KERNEL } role;

/* What stands for a float weight in one of its roles. */
typedef struct made {
    int          value, real; /* the weight; DequantizeLinear's output */
    role         as;
    struct made *next;
} made;

typedef struct weights_only {
    edit  e;
    dtype type;
    int   block; /* 0: one scale per channel or row */
    made *list;
    block_codes *rounded; /* by value id of the prepared graph: chosen by a method; or NULL */
    bool  any;
} weights_only;

static const char *const defaults[] = { "MatMul", "Gemm", "Gather", "Conv", NULL };

static role role_of(const weights_only *d, const node *n)
{
    if (node_is(n, "MatMul"))
        return ROLE_MATRIX;
    if (node_is(n, "Gemm"))
        return node_int(n, "transB", 0) ? ROLE_TRANSPOSED : ROLE_MATRIX;
    if (node_is(n, "Gather"))
        return ROLE_TABLE;
    return node_is(n, "Conv") ? ROLE_KERNEL : ROLE_NONE;
}

/* Gather's table is operand 0, every weight is operand 1. */
static int operand_of_role(role as)
{
    return as == ROLE_TABLE ? 0 : 1;
}

static const char *trouble(const weights_only *d, const node *n, role as)
{
    const tensor *w = edit_weight(&d->e, n, operand_of_role(as));
    if (as == ROLE_NONE)
        return "weight-only quantization takes MatMul, Gemm, Gather and Conv";
    if (as == ROLE_KERNEL && d->block)
        return "convolutions have one scale per channel, not blocks";
    if (!w || w->rank < 2 || (w->rank != 2 && as != ROLE_KERNEL))
        return "its weight is not a constant float32 matrix";
    if (as == ROLE_TABLE && node_int(n, "axis", 0) != 0)
        return "it does not gather rows";
    return NULL;
}

/* The axis that blocks run along, or that one scale is for (block = 0). */
static int axis_of(const weights_only *d, role as)
{
    if (as == ROLE_MATRIX || as == ROLE_TRANSPOSED)
        return d->block ? 0 : 1;
    return as == ROLE_TABLE && d->block ? 1 : 0;
}

/* Codes of one byte as a tensor of the type: 4-bit ones two a byte, the first in the low half. */
static void pack_codes(const int8_t *codes, size_t n, dtype type, uint8_t *to)
{
    const bool half = type == RUNG_I4 || type == RUNG_U4;
    for (size_t i = 0; i < n; i++) {
        if (!half)
            to[i] = (uint8_t)codes[i];
        else if (i % 2 == 0)
            to[i / 2] = codes[i] & 15;
        else
            to[i / 2] |= (uint8_t)((unsigned)codes[i] << 4);
    }
}

/* Room for the codes, scales and zero points of one weight. */
typedef struct parts {
    tensor  codes, scale, zero;
    int8_t *bytes, *zeros, *scratch;
} parts;

static bool parts_new(weights_only *d, const tensor *w, int axis, size_t line, parts *p)
{
    edit *e = &d->e;
    const size_t n = tensor_count(w);
    p->scale = (tensor){ .type = RUNG_F32, .rank = w->rank };
    memcpy(p->scale.dims, w->dims, sizeof w->dims);
    p->scale.dims[axis] = (w->dims[axis] - 1) / (int64_t)line + 1;
    const size_t n_scales = tensor_count(&p->scale);
    p->codes = *w;
    p->codes.type = p->zero.type = d->type;
    p->zero.rank = p->scale.rank;
    memcpy(p->zero.dims, p->scale.dims, sizeof p->scale.dims);
    p->codes.data = arena_zero(e->mem, dtype_bytes(d->type, n), 1);
    p->scale.data = arena_zero(e->mem, n_scales, sizeof(float));
    p->zero.data = arena_zero(e->mem, dtype_bytes(d->type, n_scales), 1);
    p->bytes = arena_zero(e->mem, n, 1);
    p->zeros = arena_zero(e->mem, n_scales, 1);
    p->scratch = arena_zero(e->mem, line, 1);
    e->failed = e->failed || !p->codes.data || !p->scale.data || !p->zero.data || !p->bytes ||
                !p->zeros || !p->scratch;
    return !e->failed;
}

/* One scale per channel: a blocked quantization of [outer, inner] or [inner, outer] whose block is
 * the whole line; convolutions are [channels, rest]. */
static tensor as_lines(const weights_only *d, const tensor *w, role as)
{
    tensor lines = *w;
    if (as == ROLE_KERNEL) {
        lines.rank = 2;
        lines.dims[1] = (int64_t)dims_count(w->rank - 1, w->dims + 1);
    }
    return lines;
}

static int dequantize(weights_only *d, int v, const tensor *w, role as)
{
    edit *e = &d->e;
    const char *base = e->g->values[v].name;
    const int axis = axis_of(d, as);
    const tensor lines = as_lines(d, w, as);
    const int along = d->block ? axis : 1 - axis; /* the axis whose elements share a scale */
    const size_t line = d->block ? (size_t)d->block : (size_t)lines.dims[along];
    const block_codes *chosen = d->rounded && d->rounded[v].codes ? &d->rounded[v] : NULL;
    block_format f = block_format_of(d->type, true);
    parts p;
    f.half_quadratic = e->opt->methods & RUNG_METHOD_HQQ;
    if (!parts_new(d, &lines, along, line, &p))
        return -1;
    if (chosen) {
        memcpy(p.scale.data, chosen->scales, tensor_count(&p.scale) * sizeof(float));
        memcpy(p.zeros, chosen->zeros, tensor_count(&p.scale));
        memcpy(p.bytes, chosen->codes, tensor_count(w));
        edit_report_bad(e, v, count_not_finite(w));
    } else {
        edit_report_bad(e, v, blocks_quantize(&lines, along, line, &f, p.scale.data, p.zeros,
                                              p.bytes, p.scratch));
    }
    pack_codes(p.bytes, tensor_count(w), d->type, p.codes.data);
    pack_codes(p.zeros, tensor_count(&p.scale), d->type, p.zero.data);
    p.codes.rank = w->rank;
    memcpy(p.codes.dims, w->dims, sizeof w->dims);
    if (!d->block) {
        p.scale.dims[0] = p.zero.dims[0] = lines.dims[axis];
        p.scale.rank = p.zero.rank = 1;
    }
    int in[3] = { edit_constant(e, base, "_q", &p.codes),
                  edit_constant(e, base, "_scale", &p.scale), -1 };
    if (!f.symmetric)
        in[2] = edit_constant(e, base, "_zero", &p.zero);
    const int real = edit_node(e, "DequantizeLinear", in, f.symmetric ? 2 : 3, -1, base, "_dq",
                               RUNG_F32);
    rung_error ignored;
    if (e->failed || graph_set_int(e->g, edit_last(e), "axis", axis, &ignored) != RUNG_OK ||
        (d->block &&
         graph_set_int(e->g, edit_last(e), "block_size", d->block, &ignored) != RUNG_OK))
        e->failed = true;
    return real;
}

/* The float value that the node reads in place of its weight; made once for each role. */
static int take_weight(weights_only *d, const node *n, role as)
{
    edit *e = &d->e;
    const int i = operand_of_role(as), v = n->inputs[i];
    for (const made *m = d->list; m; m = m->next)
        if (m->value == v && m->as == as)
            return m->real;
    const tensor *w = edit_weight(e, n, i);
    if (as == ROLE_TRANSPOSED && !(w = edit_matrix(e, w, true, 1)))
        return -1;
    const int real = dequantize(d, v, w, as);
    made *m = arena_zero(e->mem, 1, sizeof *m);
    if (!m || real < 0) {
        e->failed = true;
        return -1;
    }
    *m = (made){ v, real, as, d->list };
    d->list = m;
    return real;
}

static rung_status run(weights_only *d, rung_error *err)
{
    edit *e = &d->e;
    for (size_t i = 0; i < e->n_nodes && !e->failed; i++) {
        node *n = &e->g->nodes[i];
        const role as = role_of(d, n);
        if (!edit_selects(e, n, defaults))
            continue;
        const char *why = trouble(d, n, as);
        if (why) {
            if (edit_weight(e, n, operand_of_role(as))) /* others have no weight to speak of */
                edit_stays_float(e, n, why);
            continue;
        }
        const int real = take_weight(d, n, as);
        n = &e->g->nodes[i]; /* adding nodes moves them */
        if (!e->failed) {
            n->inputs[operand_of_role(as)] = real;
            node_remove_attr(n, "transB");
            d->any = true;
        }
    }
    if (!e->failed && !d->any)
        return fail(err, RUNG_EARGUMENT, "nothing is left to quantize: no chosen operator has a "
                    "constant float32 weight that this mode takes");
    return e->failed || !d->block ? RUNG_OK : rewrite_raise_opset(e->g, 21, err);
}

static void choose_format(weights_only *d, const rung_quant_options *opt)
{
    const int bits = opt->weight_bits ? opt->weight_bits : 8;
    d->type = bits == 4 ? (opt->weight_asymmetric ? RUNG_U4 : RUNG_I4)
                        : (opt->weight_asymmetric ? RUNG_U8 : RUNG_I8);
    d->block = opt->block ? opt->block : bits == 4 ? DEFAULT_BLOCK : 0;
}

/* --- methods that look at activations --------------------------------------------------------- */

/* The products that will be quantized, in g. */
static bool *products_of(const graph *g, const rung_quant_options *opt, arena *mem)
{
    const edit look = { .g = (graph *)(uintptr_t)g, .opt = opt };
    bool *wanted = arena_zero(mem, g->n_nodes + 1, sizeof *wanted);
    for (size_t i = 0; wanted && i < g->n_nodes; i++)
        wanted[i] = edit_selects(&look, &g->nodes[i], defaults);
    return wanted;
}

/* AWQ: a prepared copy of g, rescaled. */
static rung_status rescaled(const graph *g, const samples *s, const weights_only *d,
                            const rung_quant_options *opt, graph **out, diagnostics *diag,
                            rung_error *err)
{
    size_t n;
    rung_status st = graph_clone(g, out, err);
    if (st != RUNG_OK || (st = rewrite_prepare(*out, err)) != RUNG_OK)
        return st;
    arena *mem = arena_new();
    const bool *wanted = mem ? products_of(*out, opt, mem) : NULL;
    st = wanted ? methods_awq(*out, s, opt, wanted, d->type, (size_t)d->block, diag, &n, err)
                : fail_memory(err, "rescaling", g->n_nodes);
    arena_free(mem);
    return st;
}

static rung_status round_by_gptq(weights_only *d, const samples *s, rung_error *err)
{
    edit *e = &d->e;
    const bool *wanted = products_of(e->g, e->opt, e->mem);
    d->rounded = arena_zero(e->mem, e->n_values + 1, sizeof *d->rounded);
    if (!wanted || !d->rounded)
        return fail_memory(err, "rounding", e->n_values * sizeof *d->rounded);
    return methods_gptq_blocks(e->g, s, e->opt, wanted, d->type, (size_t)d->block, e->mem,
                               d->rounded, e->diag, err);
}

/* *out, made by `methods`, against the model without the first of them, on samples kept apart: the
 * better one stays. */
static rung_status keep_better(const graph *g, dataset *data, const rung_quant_options *opt,
                               unsigned methods, const samples *s, graph **out, diagnostics *diag,
                               rung_error *err)
{
    const unsigned first = methods & RUNG_METHOD_AWQ ? RUNG_METHOD_AWQ : RUNG_METHOD_GPTQ;
    rung_quant_options less = *opt;
    graph *other = NULL;
    double with = 0, without = 0;
    less.methods = methods & ~first;
    if (!less.methods)
        less.methods = RUNG_METHOD_NONE;
    rung_status st = quantize_weights(g, data, &less, &other, NULL, err);
    if (st == RUNG_OK)
        st = samples_sqnr(s, g, *out, &with, err);
    if (st == RUNG_OK)
        st = samples_sqnr(s, g, other, &without, err);
    if (st == RUNG_OK) {
        const bool better = with > without;
        diagnose(diag, better ? "method" : "method-undone",
                 first == RUNG_METHOD_AWQ ? "awq" : "gptq",
                 "the network has %.2f dB, %.2f dB without, on samples kept apart", with, without);
        if (!better) {
            graph *worse = *out;
            *out = other;
            other = worse;
        }
    }
    graph_free(other);
    return st;
}

static rung_status finish(weights_only *d, rung_status st, graph **out, rung_error *err)
{
    const char *text = NULL;
    if (d->e.mem && d->block)
        text = arena_printf(d->e.mem, "rung " RUNG_VERSION " weights=%s block=%d",
                            dtype_name(d->type), d->block);
    else if (d->e.mem)
        text = arena_printf(d->e.mem, "rung " RUNG_VERSION " weights=%s per-channel",
                            dtype_name(d->type));
    return edit_end(&d->e, st, text, out, err);
}

rung_status quantize_weights(const graph *g, dataset *data, const rung_quant_options *opt,
                             graph **out, diagnostics *diag, rung_error *err)
{
    const unsigned looking = RUNG_METHOD_AWQ | RUNG_METHOD_GPTQ;
    const unsigned methods = opt->methods || !data ? opt->methods : RUNG_METHOD_GPTQ;
    weights_only d = { .any = false };
    samples s = { 0 };
    graph *scaled = NULL;
    rung_status st = RUNG_OK;
    choose_format(&d, opt);
    if (methods & looking)
        st = samples_load(g, data, opt, &s, err);
    s.n_threads = s.n_threads > 0 ? s.n_threads : omp_get_num_procs();
    if (st == RUNG_OK && methods & looking && s.n < 2)
        st = fail(err, RUNG_EARGUMENT, "all samples are in one batch: none are left to check with; "
                  "give more, or a smaller batch");
    if (st == RUNG_OK && methods & RUNG_METHOD_AWQ)
        st = rescaled(g, &s, &d, opt, &scaled, diag, err);
    if (st != RUNG_OK)
        goto done;
    st = edit_begin(&d.e, scaled ? scaled : g, opt, diag, err);
    if (st == RUNG_OK && methods & RUNG_METHOD_GPTQ)
        st = round_by_gptq(&d, &s, err);
    if (st == RUNG_OK)
        st = run(&d, err);
    st = finish(&d, st, out, err);
    if (st == RUNG_OK && methods & looking) {
        st = keep_better(g, data, opt, methods, &s, out, diag, err);
        if (st != RUNG_OK) {
            graph_free(*out);
            *out = NULL;
        }
    }
done:
    samples_free(&s);
    graph_free(scaled);
    return st;
}
