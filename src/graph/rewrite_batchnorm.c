/* BatchNormalization folded into its neighbour. */
#include "graph/pass.h"
#include "graph/rewrite.h"

#include <math.h>
#include <string.h>

/* What a BatchNormalization does: y = a[c] * x + b[c]. */
typedef struct affine {
    double *a, *b; /* [n] */
    size_t  n;
    bool    zero_shift; /* every b is 0 */
} affine;

/* The channel that element i of a weight belongs to, for all layouts met here:
 * i / group_size * per_group + i / inner % per_group. */
typedef struct channel_map {
    size_t inner, per_group, group_size;
} channel_map;

static size_t channel_of(const channel_map *m, size_t i)
{
    return i / m->group_size * m->per_group + i / m->inner % m->per_group;
}

/* --- reading ------------------------------------------------------------------------------- */

/* Input i as float32 constant of rank 1 with count elements, count > 0; NULL: it is not that. */
static const float *f32_vector(const graph *g, const node *n, int i, size_t count)
{
    const tensor *t = node_constant(g, n, i);
    return t && t->type == RUNG_F32 && t->rank == 1 && t->dims[0] > 0 && tensor_count(t) == count
               ? t->data
               : NULL;
}

/* Whether bn has its inference form and constant, finite parameters. */
static rung_status read_affine(const pass *p, const node *bn, affine *out, bool *ok,
                               rung_error *err)
{
    const tensor *scale = node_constant(p->g, bn, 1);
    const size_t n = scale ? tensor_count(scale) : 0;
    const float *v[4];
    *ok = false;
    for (int i = 0; i < 4; i++)
        if (!(v[i] = f32_vector(p->g, bn, i + 1, n)))
            return RUNG_OK;
    for (int k = 1; k < bn->n_outputs; k++)
        if (pass_output_used(p, bn, k))
            return RUNG_OK;
    if (node_int(bn, "training_mode", 0) || !node_int(bn, "spatial", 1) || bn->inputs[0] < 0)
        return RUNG_OK;
    *out = (affine){ arena_zero(p->mem, n, sizeof(double)), arena_zero(p->mem, n, sizeof(double)),
                     n, true };
    if (!out->a || !out->b)
        return fail_memory(err, "folding a BatchNormalization", n * sizeof(double));
    const double epsilon = node_float(bn, "epsilon", 1e-5f);
    *ok = true;
    for (size_t c = 0; c < n; c++) {
        out->a[c] = v[0][c] / sqrt(v[3][c] + epsilon);
        out->b[c] = v[1][c] - v[2][c] * out->a[c];
        out->zero_shift = out->zero_shift && out->b[c] == 0;
        *ok = *ok && isfinite(out->a[c]) && isfinite(out->b[c]);
    }
    return RUNG_OK;
}

/* --- new weights --------------------------------------------------------------------------- */

/* w[i] * a[channel of i] as a new constant; -1: memory is out. */
static int add_scaled(graph *g, int weight, const affine *f, const channel_map *m)
{
    const tensor *w = g->values[weight].constant;
    tensor *t = tensor_new(g->mem, RUNG_F32, w->rank, w->dims);
    if (!t)
        return -1;
    const float *from = w->data;
    float *to = t->data;
    for (size_t i = 0, n = tensor_count(w); i < n; i++)
        to[i] = (float)(from[i] * f->a[channel_of(m, i)]);
    return pass_add_tensor(g, g->values[weight].name, "_bn", t);
}

/* The bias old[c * step] * factor * a[c] + b[c] (old may be NULL) as a new constant. */
static int add_bias(graph *g, const char *hint, const float *old, size_t step, double factor,
                    const affine *f)
{
    const int64_t dims[] = { (int64_t)f->n };
    tensor *t = tensor_new(g->mem, RUNG_F32, 1, dims);
    if (!t)
        return -1;
    float *to = t->data;
    for (size_t c = 0; c < f->n; c++)
        to[c] = (float)((old ? old[c * step] * factor * f->a[c] : 0) + f->b[c]);
    return pass_add_tensor(g, hint, "_bn", t);
}

/* n takes the new weight and bias. */
static rung_status set_weights(graph *g, node *n, int weight, int bias, rung_error *err)
{
    rung_status st = node_set_input(g, n, 1, weight, err);
    return st == RUNG_OK ? node_set_input(g, n, 2, bias, err) : st;
}

static const char *bias_hint(const graph *g, const node *n)
{
    const int bias = node_input(n, 2);
    return g->values[bias >= 0 ? bias : n->inputs[1]].name;
}

/* n makes what bn made. */
static void take_output(graph *g, node *n, node *bn)
{
    g->values[n->outputs[0]].producer = -1;
    n->outputs[0] = bn->outputs[0];
    g->values[n->outputs[0]].producer = (int)(n - g->nodes);
    bn->dead = true;
}

/* --- behind a Conv, ConvTranspose or Gemm -------------------------------------------------- */

/* The float32 constant that is n's weight, rank at least min_rank and no dimension 0. */
static const tensor *f32_weight(const graph *g, const node *n, int min_rank)
{
    const tensor *w = node_constant(g, n, 1);
    return w && w->type == RUNG_F32 && w->rank >= min_rank && tensor_count(w) > 0 ? w : NULL;
}

/* Which output channel each weight makes; false: not one per channel of f. */
static bool output_map(const node *n, const tensor *w, bool transposed, size_t n_channels,
                       channel_map *m)
{
    const size_t count = tensor_count(w), first = (size_t)w->dims[0], second = (size_t)w->dims[1];
    const int64_t group = node_int(n, "group", 1);
    if (!transposed) {
        *m = (channel_map){ count / first, first, count };
        return first == n_channels;
    }
    if (group < 1 || first % (size_t)group || n_channels % (size_t)group)
        return false;
    *m = (channel_map){ count / first / second, second, count / (size_t)group };
    return second == n_channels / (size_t)group;
}

static rung_status fold_behind_conv(const pass *p, node *conv, node *bn, const affine *f,
                                    bool transposed, rung_error *err)
{
    graph *g = p->g;
    const tensor *w = f32_weight(g, conv, 3);
    const bool has_bias = node_input(conv, 2) >= 0;
    const float *bias = f32_vector(g, conv, 2, f->n);
    channel_map m;
    if (!w || (has_bias && !bias) || !output_map(conv, w, transposed, f->n, &m))
        return RUNG_OK;
    const int new_bias = add_bias(g, bias_hint(g, conv), bias, 1, 1, f);
    const rung_status st = set_weights(g, conv, add_scaled(g, conv->inputs[1], f, &m), new_bias,
                                       err);
    if (st == RUNG_OK)
        take_output(g, conv, bn);
    return st;
}

/* Gemm's C as a row: *step = 0 for one element, 1 for [n], [1,n]. false: another shape. */
static bool row_of(const tensor *c, size_t n, size_t *step)
{
    *step = tensor_count(c) == 1 ? 0 : 1;
    if (c->type != RUNG_F32 || c->rank > 2 || (*step && tensor_count(c) != n))
        return false;
    return !*step || c->dims[c->rank - 1] == (int64_t)n;
}

static rung_status fold_behind_gemm(const pass *p, node *gemm, node *bn, const affine *f,
                                    rung_error *err)
{
    graph *g = p->g;
    const tensor *w = f32_weight(g, gemm, 2), *c = node_constant(g, gemm, 2);
    size_t step = 0;
    if (!w || w->rank != 2 || (node_input(gemm, 2) >= 0 && !(c && row_of(c, f->n, &step))))
        return RUNG_OK;
    const bool trans_b = node_int(gemm, "transB", 0) != 0;
    const size_t count = tensor_count(w), rows = (size_t)w->dims[0];
    const channel_map m = { trans_b ? count / rows : 1, f->n, count };
    if ((size_t)w->dims[trans_b ? 0 : 1] != f->n)
        return RUNG_OK;
    const int bias = add_bias(g, bias_hint(g, gemm), c ? c->data : NULL, step,
                              node_float(gemm, "beta", 1), f);
    rung_status st = set_weights(g, gemm, add_scaled(g, gemm->inputs[1], f, &m), bias, err);
    if (st == RUNG_OK && node_attr(gemm, "beta"))
        st = graph_set_float(g, gemm, "beta", 1, err);
    if (st == RUNG_OK)
        take_output(g, gemm, bn);
    return st;
}

static rung_status fold_behind(const pass *p, node *bn, const affine *f, rung_error *err)
{
    const int x = bn->inputs[0];
    node *maker = pass_private_maker(p, x, "Conv");
    if (maker)
        return fold_behind_conv(p, maker, bn, f, false, err);
    if ((maker = pass_private_maker(p, x, "ConvTranspose")))
        return fold_behind_conv(p, maker, bn, f, true, err);
    if ((maker = pass_private_maker(p, x, "Gemm")))
        return fold_behind_gemm(p, maker, bn, f, err);
    return RUNG_OK;
}

/* --- before a Conv ------------------------------------------------------------------------- */

static bool has_no_padding(const node *conv)
{
    const char *automatic = node_string(conv, "auto_pad", "NOTSET");
    const int64_t *pads = NULL;
    const size_t n = node_ints(conv, "pads", &pads);
    if (!strcmp(automatic, "VALID"))
        return true;
    for (size_t i = 0; i < n; i++)
        if (pads[i])
            return false;
    return !strcmp(automatic, "NOTSET");
}

/* What the shift adds to output channel o: sum of w[o][..] * b[input channel]. In mem. */
static double *shift_of(arena *mem, const tensor *w, const affine *f, const channel_map *m)
{
    const size_t n_out = (size_t)w->dims[0], per_out = tensor_count(w) / n_out;
    const float *from = w->data;
    double *sum = arena_zero(mem, n_out, sizeof *sum);
    for (size_t i = 0; sum && i < n_out * per_out; i++)
        sum[i / per_out] += from[i] * f->b[channel_of(m, i)];
    return sum;
}

static rung_status fold_before(const pass *p, node *bn, const affine *f, rung_error *err)
{
    graph *g = p->g;
    const int y = bn->outputs[0], user = p->kept[y] ? -1 : pass_only_user(p, y);
    node *conv = user < 0 ? NULL : &g->nodes[user];
    if (!conv || !node_is(conv, "Conv") || node_input(conv, 0) != y)
        return RUNG_OK;
    const tensor *w = f32_weight(g, conv, 3);
    const int64_t group = node_int(conv, "group", 1);
    if (!w || group < 1 || w->dims[0] % group || (!f->zero_shift && !has_no_padding(conv)))
        return RUNG_OK;
    const size_t n_out = (size_t)w->dims[0], count = tensor_count(w);
    const size_t per_group = (size_t)w->dims[1];
    const channel_map m = { count / n_out / per_group, per_group, count / (size_t)group };
    const float *bias = f32_vector(g, conv, 2, n_out);
    if (f->n / (size_t)group != per_group || f->n % (size_t)group ||
        (node_input(conv, 2) >= 0 && !bias))
        return RUNG_OK;
    /* As if an affine with factor 1 and this shift stood behind the Conv. */
    affine behind = { arena_zero(p->mem, n_out, sizeof(double)), shift_of(p->mem, w, f, &m), n_out,
                      false };
    if (!behind.a || !behind.b)
        return fail_memory(err, "folding a BatchNormalization", n_out * sizeof(double));
    for (size_t o = 0; o < n_out; o++)
        behind.a[o] = 1;
    const int new_bias = add_bias(g, bias_hint(g, conv), bias, 1, 1, &behind);
    const rung_status st = set_weights(g, conv, add_scaled(g, conv->inputs[1], f, &m), new_bias,
                                       err);
    conv->inputs[0] = bn->inputs[0];
    bn->dead = true;
    return st;
}

/* --- what is left -------------------------------------------------------------------------- */

/* v as constant [C,1,..] that broadcasts over a tensor of that rank. */
static int add_channels(graph *g, const node *bn, const char *suffix, const double *v, size_t n,
                        int rank)
{
    int64_t dims[RUNG_MAX_RANK] = { (int64_t)n, 1, 1, 1, 1, 1, 1, 1 };
    tensor *t = tensor_new(g->mem, RUNG_F32, rank - 1, dims);
    if (!t)
        return -1;
    for (size_t c = 0; c < n; c++)
        ((float *)t->data)[c] = (float)v[c];
    return pass_add_tensor(g, g->values[bn->outputs[0]].name, suffix, t);
}

static const char *name_with(graph *g, const char *name, const char *suffix)
{
    const char *joined = *name ? arena_printf(g->mem, "%s%s", name, suffix) : "";
    return joined ? joined : "";
}

/* bn -> Mul, Add. Moves g->nodes. */
static rung_status split(const pass *p, int index, const affine *f, rung_error *err)
{
    graph *g = p->g;
    const node bn = g->nodes[index];
    const value_info *x = pass_info(p, bn.inputs[0]);
    if (x->rank < 2)
        return RUNG_OK;
    const int factor = add_channels(g, &bn, "_scale", f->a, f->n, x->rank);
    const int shift = add_channels(g, &bn, "_shift", f->b, f->n, x->rank);
    const int product = graph_add_value(g, name_with(g, g->values[bn.outputs[0]].name, "_scaled"),
                                        RUNG_F32, x->rank, x->dims);
    if (factor < 0 || shift < 0 || product < 0)
        return fail_memory(err, "a BatchNormalization as Mul and Add", f->n * sizeof(float));
    g->nodes[index].dead = true;
    const int mul_in[] = { bn.inputs[0], factor }, add_in[] = { product, shift };
    if (graph_add_node(g, "Mul", "", name_with(g, bn.name, "_scale"), mul_in, 2, &product, 1) < 0 ||
        graph_add_node(g, "Add", "", name_with(g, bn.name, "_shift"), add_in, 2, bn.outputs, 1) < 0)
        return fail_memory(err, "a BatchNormalization as Mul and Add", sizeof(node));
    return RUNG_OK;
}

static rung_status fold(const pass *p, int index, rung_error *err)
{
    node *bn = &p->g->nodes[index];
    affine f;
    bool ok = false;
    if (!node_is(bn, "BatchNormalization") || bn->n_outputs < 1 || bn->outputs[0] < 0)
        return RUNG_OK;
    rung_status st = read_affine(p, bn, &f, &ok, err);
    if (st != RUNG_OK || !ok)
        return st;
    st = fold_behind(p, bn, &f, err);
    if (st == RUNG_OK && !bn->dead)
        st = fold_before(p, bn, &f, err);
    if (st == RUNG_OK && !bn->dead)
        st = split(p, index, &f, err);
    return st;
}

rung_status rewrite_fold_batchnorm(graph *g, rung_error *err)
{
    pass p;
    const size_t n_nodes = g->n_nodes;
    rung_status st = pass_begin(&p, g, err);
    if (st == RUNG_OK)
        st = pass_infer(&p, err);
    for (size_t i = 0; st == RUNG_OK && i < n_nodes; i++)
        st = fold(&p, (int)i, err);
    if (st == RUNG_OK)
        st = graph_sort(g, err);
    pass_end(&p);
    return st;
}
