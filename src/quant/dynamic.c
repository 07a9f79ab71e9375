/* Dynamic quantization: int8 weights; activations are ranged when the model runs.
 *
 * y = x W + b becomes, in standard operators,
 *     x_q, x_scale, x_zero = DynamicQuantizeLinear(x)              one for all that read x
 *     y = Cast(MatMulInteger(x_q, W_q, x_zero)) * (x_scale * w_scale) + b
 * which ONNX Runtime fuses too (DynamicQuantizeMatMul). A Gemm is taken apart: its alpha goes into
 * the weight, beta into the bias. Conv becomes ConvInteger in the same way. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "quant/edit.h"
#include "quant/rescale.h"

static const char *const defaults[] = { "MatMul", "Gemm", NULL };

typedef struct activation {
    int codes, scale, zero;
} activation;

typedef struct weight {
    int   codes, scale;
    bool  transposed, is_conv;
    float factor;
} weight;

typedef struct dynamic {
    edit        e;
    activation *activations; /* [n_values]; codes = 0: not made yet */
    weight     *weights;     /* [n_values]; codes = 0: not made yet */
    bool        any;
} dynamic;

/* Whether 255 * the sum of a channel's magnitudes fits the int32 accumulator. */
static bool fits_accumulator(const tensor *w, int axis, const float *scales, bool per_tensor)
{
    for (size_t c = 0; c < weight_channels(w, axis); c++)
        if (255 * weight_code_sum(w, axis, c, scales[per_tensor ? 0 : c]) > INT32_MAX)
            return false;
    return true;
}

/* int8 codes and scales of w along axis. The scales get `tail` dimensions of 1 behind them, to
 * broadcast over images. False: the sums do not fit, or (e->failed) memory is out. */
static bool quantize_weight(dynamic *d, int v, const tensor *w, int axis, int tail, weight *out)
{
    edit *e = &d->e;
    const bool per_tensor = e->opt->per_tensor;
    const size_t n = per_tensor ? 1 : (size_t)w->dims[axis];
    const char *base = e->g->values[v].name;
    float *scales = arena_zero(e->mem, n, sizeof *scales);
    tensor codes = *w, scale = { .type = RUNG_F32, .rank = per_tensor ? 0 : 1 + tail };
    codes.type = RUNG_I8;
    codes.data = arena_alloc(e->mem, tensor_count(w));
    e->failed = e->failed || !scales || !codes.data;
    if (e->failed)
        return false;
    const int along = per_tensor ? -1 : axis;
    edit_report_bad(e, v, weight_quantize(w, along, scales, codes.data));
    if (!fits_accumulator(w, axis, scales, per_tensor))
        return false;
    for (int i = 0; i < scale.rank; i++)
        scale.dims[i] = i == 0 ? (int64_t)n : 1;
    scale.data = scales;
    out->codes = edit_constant(e, base, "_q", &codes);
    out->scale = edit_constant(e, base, "_scale", &scale);
    return !e->failed;
}

/* The weight of a matrix product or convolution, made once for all that use it alike. */
static bool take_weight(dynamic *d, const node *n, bool transposed, float factor, weight *out)
{
    edit *e = &d->e;
    const int v = n->inputs[1];
    weight *have = &d->weights[v];
    const weight want = { .transposed = transposed, .factor = factor,
                          .is_conv = node_is(n, "Conv") };
    if (have->codes && have->transposed == transposed && have->factor == factor &&
        have->is_conv == want.is_conv) {
        *out = *have;
        return true;
    }
    const tensor *w = edit_weight(e, n, 1);
    *out = want;
    if (want.is_conv && !quantize_weight(d, v, w, 0, w->rank - 2, out))
        return false;
    if (!want.is_conv) {
        w = edit_matrix(e, w, transposed, factor);
        if (!w || !quantize_weight(d, v, w, 1, 0, out))
            return false;
    }
    if (!have->codes)
        *have = *out;
    return true;
}

static activation take_activation(dynamic *d, int x)
{
    edit *e = &d->e;
    activation *a = &d->activations[x];
    if (a->codes)
        return *a;
    const char *base = e->g->values[x].name;
    const activation made = { .codes = edit_value(e, base, "_q", RUNG_U8),
                              .scale = edit_value(e, base, "_scale", RUNG_F32),
                              .zero = edit_value(e, base, "_zero", RUNG_U8) };
    const int out[] = { made.codes, made.scale, made.zero };
    if (!e->failed && graph_add_node(e->g, "DynamicQuantizeLinear", "", "", &x, 1, out, 3) < 0)
        e->failed = true;
    if (!e->failed)
        *a = made;
    return made;
}

/* Bias b as a constant: times beta, and for images with `tail` dimensions of 1. */
static int take_bias(dynamic *d, int b, float beta, int tail)
{
    edit *e = &d->e;
    const tensor *t = e->g->values[b].constant;
    if (beta == 1 && tail == 0)
        return b;
    tensor *copy = tensor_copy(e->mem, t);
    if (!copy) {
        e->failed = true;
        return -1;
    }
    for (size_t i = 0; i < tensor_count(t); i++)
        ((float *)copy->data)[i] *= beta;
    for (int i = 0; i < tail; i++)
        copy->dims[copy->rank++] = 1;
    return edit_constant(e, e->g->values[b].name, "_scaled", copy);
}

/* Why the node stays float; NULL: it need not. */
static const char *trouble(const dynamic *d, const node *n)
{
    const edit *e = &d->e;
    const bool conv = node_is(n, "Conv");
    const tensor *w = edit_weight(e, n, 1);
    const int bias = node_input(n, 2);
    if (!w || (conv ? w->rank < 3 || w->rank + 1 > RUNG_MAX_RANK : w->rank != 2))
        return "its weight is not a constant float32 matrix";
    if (node_input(n, 0) < 0 || e->g->values[n->inputs[0]].constant ||
        e->info[n->inputs[0]].type != RUNG_F32)
        return "its input is not a float32 activation";
    if (node_int(n, "transA", 0))
        return "transA is set";
    if (bias < 0)
        return NULL;
    const tensor *b = edit_weight(e, n, 2);
    if (conv && (!b || b->rank != 1))
        return "its bias is not a constant vector";
    if (!b && node_float(n, "beta", 1) != 1)
        return "its C is not constant and beta is set";
    return NULL;
}

/* The attributes of Conv are those of ConvInteger. */
static void copy_attrs(dynamic *d, const node *from)
{
    rung_error ignored;
    for (int i = 0; i < from->n_attrs && !d->e.failed; i++)
        if (graph_set_attr(d->e.g, edit_last(&d->e), &from->attrs[i], &ignored) != RUNG_OK)
            d->e.failed = true;
}

static void convert(dynamic *d, size_t index)
{
    edit *e = &d->e;
    const node n = e->g->nodes[index]; /* adding nodes moves them */
    const bool conv = node_is(&n, "Conv");
    const int y = n.outputs[0], b = node_input(&n, 2);
    const char *base = e->g->values[y].name;
    weight w;
    if (!take_weight(d, &n, node_int(&n, "transB", 0) != 0, node_float(&n, "alpha", 1), &w)) {
        if (!e->failed)
            edit_stays_float(e, &n, "its sums could overflow int32");
        return;
    }
    const activation x = take_activation(d, n.inputs[0]);
    const int tail = conv ? edit_weight(e, &n, 1)->rank - 2 : 0;
    const int bias = b < 0 ? -1
                     : edit_weight(e, &n, 2) ? take_bias(d, b, node_float(&n, "beta", 1), tail) : b;
    const int product[] = { x.codes, w.codes, x.zero }, scales[] = { x.scale, w.scale };
    const int sum = edit_node(e, conv ? "ConvInteger" : "MatMulInteger", product, 3, -1, base,
                              "_int32", RUNG_I32);
    if (conv)
        copy_attrs(d, &n);
    const int real = edit_node(e, "Cast", &sum, 1, -1, base, "_cast", RUNG_F32);
    rung_error ignored;
    if (!e->failed && graph_set_int(e->g, edit_last(e), "to", RUNG_F32, &ignored) != RUNG_OK)
        e->failed = true;
    const int scale = edit_node(e, "Mul", scales, 2, -1, base, "_scale", RUNG_F32);
    const int scaled[] = { real, scale };
    const int plain = edit_node(e, "Mul", scaled, 2, b < 0 ? y : -1, base, "_scaled", RUNG_F32);
    const int added[] = { plain, bias };
    if (b >= 0)
        edit_node(e, "Add", added, 2, y, base, "", RUNG_F32);
    e->g->nodes[index].dead = true;
    d->any = true;
}

static rung_status run(dynamic *d, rung_error *err)
{
    edit *e = &d->e;
    d->activations = arena_zero(e->mem, e->n_values + 1, sizeof *d->activations);
    d->weights = arena_zero(e->mem, e->n_values + 1, sizeof *d->weights);
    if (!d->activations || !d->weights)
        return fail_memory(err, "quantization", e->n_values * sizeof *d->weights);
    for (size_t i = 0; i < e->n_nodes && !e->failed; i++) {
        const node *n = &e->g->nodes[i];
        if (!edit_selects(e, n, defaults))
            continue;
        if (!node_is(n, "MatMul") && !node_is(n, "Gemm") && !node_is(n, "Conv")) {
            edit_stays_float(e, n, "dynamic quantization takes MatMul, Gemm and Conv");
            continue;
        }
        const char *why = trouble(d, n);
        if (!why)
            convert(d, i);
        else if (node_constant(e->g, n, 1)) /* products of two activations have no weight */
            edit_stays_float(e, n, why);
    }
    if (e->failed || d->any)
        return RUNG_OK;
    return fail(err, RUNG_EARGUMENT, "nothing is left to quantize: no chosen operator has a "
                "constant float32 weight that this mode takes");
}

/* Of the products that will be quantized. */
static rung_status smooth(const graph *g, dataset *data, const rung_quant_options *opt, graph **out,
                          diagnostics *diag, rung_error *err)
{
    edit look = { .opt = opt };
    bool *wanted = NULL;
    rung_status st;
    if ((st = graph_clone(g, out, err)) != RUNG_OK || (st = rewrite_prepare(*out, err)) != RUNG_OK)
        return st;
    look.g = *out;
    wanted = mem_zero(look.g->n_nodes + 1, sizeof *wanted);
    for (size_t i = 0; wanted && i < look.g->n_nodes; i++)
        wanted[i] = edit_selects(&look, &look.g->nodes[i], defaults);
    st = wanted ? smooth_products(out, data, opt, wanted, true, diag, err)
                : fail_memory(err, "smoothing", sizeof *wanted);
    mem_free(wanted);
    return st;
}

rung_status quantize_dynamic(const graph *g, dataset *data, const rung_quant_options *opt,
                             graph **out, diagnostics *diag, rung_error *err)
{
    dynamic d = { .any = false };
    graph *smoothed = NULL;
    rung_status st = RUNG_OK;
    if (data && !(opt->methods & RUNG_METHOD_NONE))
        st = smooth(g, data, opt, &smoothed, diag, err);
    if (st != RUNG_OK) {
        graph_free(smoothed);
        return st;
    }
    st = edit_begin(&d.e, smoothed ? smoothed : g, opt, diag, err);
    graph_free(smoothed);
    if (st == RUNG_OK)
        st = run(&d, err);
    const char *text = opt->per_tensor ? "rung " RUNG_VERSION " dynamic weights=int8 per-tensor"
                                       : "rung " RUNG_VERSION " dynamic weights=int8 per-channel";
    return edit_end(&d.e, st, text, out, err);
}
