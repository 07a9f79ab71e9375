/* The tape of a prepared graph: its outputs are the converted model's, and its gradients those of
 * an evaluation node by node with the same straight-through rule. There scales are powers of two,
 * biases multiples of the accumulators' scales and zero points even (Add and Mul round behind the
 * zero point), so that float32 arithmetic on real values is exact and gives the codes of the
 * integer kernels. */
#include "data_files.h"

#include <float.h>
#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "quant/fake.h"
#include "quant/qat.h"
#include "train/tape_parts.h"
#include "train_kit.h"

enum { BATCH = 4 };

typedef graph *(*net)(rng *r);

static graph *prepared(net f, uint64_t seed, int weight_bits, int act_bits, rung_dtype act_type)
{
    rng r;
    rng_seed(&r, seed);
    graph *g = f(&r), *out;
    tensor x = {.type = RUNG_F32, .rank = g->values[g->inputs[0]].rank};
    memcpy(x.dims, g->values[g->inputs[0]].dims, sizeof x.dims);
    x.dims[0] = 8;
    float *data = mem_alloc(tensor_count(&x) * sizeof *data);
    for (size_t i = 0; i < tensor_count(&x); i++)
        data[i] = rng_normal(&r);
    x.data = data;
    dataset *d;
    assert_ok(npy_write_file("x.npy", &x, err));
    assert_ok(dataset_open("npy:x.npy", &(dataset_options){.n_workers = 1}, &d, err));
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    opt.quiet = true;
    opt.n_threads = 1;
    opt.methods = RUNG_METHOD_NONE;
    opt.weight_bits = weight_bits;
    opt.act_bits = act_bits;
    opt.act_type = act_type;
    diagnostics *diag = diagnostics_new();
    assert_ok(qat_prepare(g, d, &opt, &out, diag, err));
    diagnostics_free(diag);
    dataset_free(d);
    graph_free(g);
    mem_free(data);
    return out;
}

static const tape_options options = {
    .batch = BATCH, .n_threads = 1, .learn_act_scales = true, .learn_weight_scales = true};

/* --- equal to the deployed model -------------------------------------------------------------- */

static void expect_deployed(trial *t)
{
    const float *const *by_value;
    graph *converted;
    engine *e;
    const int64_t *dims[1] = {tape_input(t->t, 0)->dims};
    assert_ok(params_by_value(t->p, t->data, t->mem, &by_value, err));
    assert_ok(qat_convert(t->g, by_value, &converted, err));
    assert_ok(engine_create(converted, &(engine_options){.n_threads = 1, .input_dims = dims}, &e,
                            err));
    const tensor *x = tape_input(t->t, 0);
    memcpy(engine_input(e, 0)->data, x->data, tensor_count(x) * sizeof(float));
    assert_ok(engine_run(e, err));
    for (int i = 0; i < engine_n_outputs(e); i++)
        assert_memory_equal(engine_output(e, i)->data, tape_output(t->t, i)->data,
                            tensor_count(tape_output(t->t, i)) * sizeof(float));
    engine_free(e);
    graph_free(converted);
}

static void descend(trial *t, float rate)
{
    double norm = 0;
    for (size_t i = 0; i < t->p->total; i++)
        norm += (double)t->grad[i] * t->grad[i];
    for (size_t i = 0; i < t->p->n; i++) {
        const param *p = &t->p->list[i];
        const bool scale = p->kind == PARAM_ACT_SCALE || p->kind == PARAM_WEIGHT_SCALE;
        for (size_t k = p->first; k < p->first + p->count; k++) {
            const float move = rate * t->grad[k] / (float)sqrt(norm + 1e-30);
            t->data[k] -= scale ? fminf(fmaxf(move, -0.1f * t->data[k]), 0.1f * t->data[k]) : move;
        }
    }
}

static void outputs_are_those_of_the_converted_model(void **state)
{
    const net nets[] = {net_residual, net_branches, net_attention};
    for (size_t i = 0; i < 3; i++) {
        for (int way = 0; way < 3; way++) {
            graph *g = prepared(nets[i], 7 + i, way == 1 ? 4 : 8, way == 1 ? 5 : 8,
                                way == 2 ? RUNG_I8 : RUNG_U8);
            trial t = trial_begin(g, &options, i);
            assert_true(tape_memory_is_sound(t.t));
            for (int repeat = 0; repeat < 3; repeat++) {
                trial_gradient(&t);
                expect_deployed(&t);
                descend(&t, 0.05f);
            }
            trial_end(&t);
            graph_free(g);
        }
    }
}

/* --- gradients -------------------------------------------------------------------------------- */

/* Node by node, in ONNX order; gradients by value id, NULL: none. */
typedef struct reference {
    const graph *g;
    arena  *mem;
    tensor *value;
    double **grad, **bound; /* bound: the sum of what was added, without signs */
} reference;

static float power_of_two(float x)
{
    return ldexpf(1, (int)nearbyintf(log2f(x)));
}

/* Rounds the parameters so that all is exact; grain: of biases, above the accumulators' scales. */
static void make_exact(trial *t, float grain)
{
    for (size_t i = 0; i < t->p->n; i++) {
        const param *p = &t->p->list[i];
        for (size_t k = p->first; k < p->first + p->count; k++) {
            if (p->kind == PARAM_ACT_SCALE || p->kind == PARAM_WEIGHT_SCALE)
                t->data[k] = power_of_two(t->data[k]);
            else if (p->kind == PARAM_BIAS)
                t->data[k] = nearbyintf(t->data[k] / grain) * grain;
        }
    }
}

static void make_zeros_even(graph *g)
{
    uses u;
    arena *mem = arena_new();
    assert_ok(graph_uses(g, mem, &u, err));
    for (size_t i = 0; i < g->n_nodes; i++) {
        fake_quantizer q;
        fake_nodes at;
        if (!fake_read(g, &u, (int)i, &q, &at) || !q.zero)
            continue;
        for (size_t k = 0; k < tensor_count(q.zero); k++)
            ((unsigned char *)q.zero->data)[k] &= 0xfe;
    }
    arena_free(mem);
}

static void run_forward(reference *f, const trial *t)
{
    const graph *g = f->g;
    value_info *info = arena_zero(f->mem, g->n_values, sizeof *info);
    const int64_t *dims[1] = {tape_input(t->t, 0)->dims};
    assert_ok(graph_infer(g, dims, f->mem, info, err));
    for (size_t v = 0; v < g->n_values; v++) {
        if (info[v].rank < 0)
            continue;
        f->value[v] = g->values[v].constant
                          ? *g->values[v].constant
                          : *tensor_new(f->mem, info[v].type, info[v].rank, info[v].dims);
        if (v < t->p->n_values && t->p->at[v] >= 0)
            f->value[v].data = t->data + t->p->list[t->p->at[v]].first;
    }
    f->value[g->inputs[0]] = *tape_input(t->t, 0);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        tensor in[8] = {{0}}, out[1] = {f->value[n->outputs[0]]};
        for (int k = 0; k < n->n_inputs; k++)
            in[k] = n->inputs[k] < 0 ? (tensor){0} : f->value[n->inputs[k]];
        const eval_args a = {n, graph_opset(g, ""), in, n->n_inputs, out, 1, f->mem};
        assert_ok(n->op->eval(&a, err));
    }
}

static void add(reference *f, int v, const float *part, const double *bound)
{
    const size_t n = tensor_count(&f->value[v]);
    if (!f->grad[v]) {
        f->grad[v] = arena_zero(f->mem, n, sizeof(double));
        f->bound[v] = arena_zero(f->mem, n, sizeof(double));
    }
    for (size_t i = 0; i < n; i++) {
        f->grad[v][i] += part[i];
        f->bound[v][i] += bound ? bound[i] : fabs((double)part[i]);
    }
}

static float *as_float(reference *f, int v)
{
    const size_t n = tensor_count(&f->value[v]);
    float *x = arena_zero(f->mem, n, sizeof *x);
    for (size_t i = 0; f->grad[v] && i < n; i++)
        x[i] = (float)f->grad[v][i];
    return x;
}

static void node_back(reference *f, const node *n)
{
    tensor in[8] = {{0}}, din[8] = {{0}}, out = f->value[n->outputs[0]], dout = out;
    dout.data = as_float(f, n->outputs[0]);
    for (int k = 0; k < n->n_inputs; k++) {
        if (n->inputs[k] < 0)
            continue;
        in[k] = din[k] = f->value[n->inputs[k]];
        din[k].data = in[k].type == RUNG_F32
                          ? arena_zero(f->mem, tensor_count(&in[k]), sizeof(float))
                          : NULL;
    }
    const grad_args a = {n, graph_opset(f->g, ""), in, n->n_inputs, &out, 1, &dout, din, f->mem};
    assert_ok(n->op->grad(&a, err));
    for (int k = 0; k < n->n_inputs; k++)
        if (din[k].data)
            add(f, n->inputs[k], din[k].data, NULL);
}

/* Samples do not count among the elements that an activation's scale serves. */
static double step_factor(const tensor *x, bool is_weight, size_t channels, int lo, int hi)
{
    const double n = (double)tensor_count(x) / (double)channels /
                     (is_weight ? 1 : (double)x->dims[0]);
    return 1 / sqrt(n * fmax(hi, -lo));
}

static void pair_back(reference *f, const fake_quantizer *q, const fake_nodes *at, bool is_weight)
{
    const tensor *x = &f->value[at->in];
    const float *scale = f->value[at->scale].data, *dy = as_float(f, at->out), *v = x->data;
    const size_t n = tensor_count(x), channels = tensor_count(&f->value[at->scale]);
    const size_t inner = q->axis < 0 ? n : dims_count(x->rank - q->axis - 1, x->dims + q->axis + 1);
    const int zero = q->zero ? (int)tensor_get_int(q->zero, 0) : 0;
    const double factor = step_factor(x, is_weight, channels, q->lo - zero, q->hi - zero);
    float *dx = arena_zero(f->mem, n, sizeof *dx), *ds = arena_zero(f->mem, channels, sizeof *ds);
    double *bound = arena_zero(f->mem, channels, sizeof *bound);
    for (size_t i = 0; i < n; i++) {
        const size_t c = channels == 1 ? 0 : i / inner % channels;
        const double t = (double)v[i] / scale[c], code = nearbyint(t) + zero;
        const bool inside = code >= q->lo && code <= q->hi;
        const double end = (code < q->lo ? q->lo : q->hi) - zero;
        const double part = dy[i] * (inside ? nearbyint(t) - t : end) * factor;
        dx[i] = inside ? dy[i] : 0;
        ds[c] += (float)part;
        bound[c] += fabs(part);
    }
    add(f, at->in, dx, NULL);
    add(f, at->scale, ds, bound);
}

static void run_backward(reference *f, const trial *t)
{
    uses u;
    assert_ok(graph_uses(f->g, f->mem, &u, err));
    for (size_t i = f->g->n_nodes; i-- > 0;) {
        const node *n = &f->g->nodes[i];
        fake_quantizer q;
        fake_nodes at;
        if (n->op_type[0] == 'D' && f->grad[n->outputs[0]]) {
            int first = n->inputs[0];
            while (!fake_read(f->g, &u, f->g->values[first].producer, &q, &at))
                first = f->g->nodes[f->g->values[first].producer].inputs[0];
            pair_back(f, &q, &at, tape_is_param(t->t, at.in));
        } else if (f->value[n->outputs[0]].type == RUNG_F32 && f->grad[n->outputs[0]]) {
            node_back(f, n);
        }
    }
}

/* The pair at the graph's input. */
static int scale_of_input(const trial *t)
{
    for (size_t i = 0; i < t->g->n_nodes; i++) {
        const pair *q = t->t->pair_at[i];
        if (q && t->g->values[q->x].is_input)
            return q->scale;
    }
    return -1;
}

static void compare(const reference *f, const trial *t)
{
    for (size_t i = 0; i < t->p->n; i++) {
        const param *p = &t->p->list[i];
        double largest = 0;
        assert_non_null(f->grad[p->value]);
        if (p->value == scale_of_input(t)) { /* is not learned */
            assert_true(t->grad[p->first] == 0);
            continue;
        }
        for (size_t k = 0; k < p->count; k++)
            largest = fmax(largest, f->bound[p->value][k]);
        /* Sums of a few hundred products, through a few layers. */
        for (size_t k = 0; k < p->count; k++)
            if (!(fabs(t->grad[p->first + k] - f->grad[p->value][k]) <=
                  1024 * FLT_EPSILON * largest))
                fail_msg("%s[%zu]: %g by the tape, %g by nodes", p->name, k,
                         (double)t->grad[p->first + k], f->grad[p->value][k]);
    }
}

static void expect_gradient(trial *t, float grain)
{
    reference f = {.g = t->g, .mem = arena_new()};
    f.value = arena_zero(f.mem, t->g->n_values, sizeof *f.value);
    f.grad = arena_zero(f.mem, t->g->n_values, sizeof *f.grad);
    f.bound = arena_zero(f.mem, t->g->n_values, sizeof *f.bound);
    size_t n_products = 0;
    for (size_t i = 0; i < t->g->n_nodes; i++)
        n_products += t->t->pair_at[i] && t->t->pair_at[i]->product;
    assert_true(n_products > 1); /* exact sums are used, where they can be */
    make_exact(t, grain);
    trial_gradient(t);
    run_forward(&f, t);
    for (int i = 0; i < t->g->n_outputs; i++) {
        const int v = t->g->outputs[i];
        assert_memory_equal(f.value[v].data, tape_output(t->t, i)->data,
                            tensor_count(&f.value[v]) * sizeof(float));
        add(&f, v, tape_output_grad(t->t, i), NULL);
    }
    run_backward(&f, t);
    compare(&f, t);
    arena_free(f.mem);
}

static void gradients_are_straight_through(void **state)
{
    const net nets[] = {net_residual, net_branches};
    for (size_t i = 0; i < 2; i++) {
        for (int way = 0; way < 4; way++) {
            graph *g = prepared(nets[i], 3 + i, way & 1 ? 4 : 8, way & 1 ? 4 : 8,
                                way & 2 ? RUNG_I8 : RUNG_U8);
            make_zeros_even(g);
            trial t = trial_begin(g, &options, i);
            expect_gradient(&t, way & 1 ? 8 : 1.0f / 8);
            trial_end(&t);
            graph_free(g);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_those_of_the_converted_model),
        cmocka_unit_test(gradients_are_straight_through),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
