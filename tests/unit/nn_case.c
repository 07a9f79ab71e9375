#include "nn_case.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "nn/backward.h"
#include "ops/lower.h"
#include "ops/ops.h"
#include "unit.h"

#define GUARD 64 /* floats around every output that must not change */

static void must(rung_status st, const rung_error *err)
{
    if (st != RUNG_OK)
        fail_msg("%s", err->message);
}

void nn_begin(nn_case *c, rng *r, bool channels_last)
{
    rung_error err;
    *c = (nn_case){.random = r, .opset = 18, .channels_last = channels_last};
    c->mem = arena_new();
    assert_non_null(c->mem);
    must(graph_create(op_find, &c->g, &err), &err);
}

void nn_end(nn_case *c)
{
    graph_free(c->g);
    arena_free(c->mem);
}

static tensor *next_input(nn_case *c, dtype type, int rank, const int64_t *dims)
{
    tensor *t = tensor_new(c->mem, type, rank, dims);
    assert_non_null(t);
    c->in[c->n_in] = *t;
    return &c->in[c->n_in++];
}

void nn_input(nn_case *c, bool constant, int rank, const int64_t *dims)
{
    c->constant[c->n_in] = constant;
    tensor *t = next_input(c, RUNG_F32, rank, dims);
    for (size_t i = 0; i < tensor_count(t); i++)
        ((float *)t->data)[i] = rng_normal(c->random);
}

void nn_ints_input(nn_case *c, int n, const int64_t *v)
{
    const int64_t dims = n;
    c->constant[c->n_in] = true;
    tensor *t = next_input(c, RUNG_I64, 1, &dims);
    memcpy(t->data, v, (size_t)n * sizeof *v);
}

void nn_floats_input(nn_case *c, int n, const float *v)
{
    const int64_t dims = n;
    c->constant[c->n_in] = true;
    tensor *t = next_input(c, RUNG_F32, n == 1 ? 0 : 1, &dims);
    memcpy(t->data, v, (size_t)n * sizeof *v);
}

void nn_absent(nn_case *c)
{
    c->absent[c->n_in] = true;
    c->in[c->n_in++] = (tensor){.type = RUNG_UNDEFINED};
}

void nn_node(nn_case *c, const char *op, int n_out)
{
    int in[NN_MAX], out[NN_MAX];
    for (int i = 0; i < c->n_in; i++) {
        const tensor *t = &c->in[i];
        in[i] = c->absent[i] ? -1 : graph_add_value(c->g, "in", t->type, t->rank, t->dims);
    }
    for (int i = 0; i < n_out; i++)
        out[i] = graph_add_value(c->g, "out", RUNG_UNDEFINED, -1, NULL);
    const int id = graph_add_node(c->g, op, "", op, in, c->n_in, out, n_out);
    assert_true(id >= 0);
    c->n = &c->g->nodes[id];
    c->n_out = n_out;
    assert_non_null(c->n->op);
}

void nn_set_int(nn_case *c, const char *name, int64_t v)
{
    rung_error err;
    must(graph_set_int(c->g, c->n, name, v, &err), &err);
}

void nn_set_ints(nn_case *c, const char *name, int n, const int64_t *v)
{
    rung_error err;
    must(graph_set_ints(c->g, c->n, name, v, (size_t)n, &err), &err);
}

void nn_set_float(nn_case *c, const char *name, float v)
{
    rung_error err;
    must(graph_set_float(c->g, c->n, name, v, &err), &err);
}

void nn_set_string(nn_case *c, const char *name, const char *v)
{
    rung_error err;
    must(graph_set_string(c->g, c->n, name, v, &err), &err);
}

/* --- the reference ---------------------------------------------------------------------------- */
static void infer(nn_case *c)
{
    value_info in[NN_MAX], out[NN_MAX] = {0};
    const value_info *given[NN_MAX] = {NULL};
    rung_error err;
    for (int i = 0; i < c->n_in; i++) {
        const tensor *t = &c->in[i];
        in[i] = (value_info){.type = t->type, .rank = t->rank,
                             .data = c->constant[i] ? t : NULL};
        memcpy(in[i].dims, t->dims, sizeof t->dims);
        given[i] = c->absent[i] ? NULL : &in[i];
    }
    for (int i = 0; i < c->n_out; i++)
        out[i].rank = -1;
    const infer_args a = {c->n, c->opset, given, out, c->mem};
    must(c->n->op->infer(&a, &err), &err);
    for (int i = 0; i < c->n_out; i++) {
        const tensor *t = tensor_new(c->mem, out[i].type, out[i].rank, out[i].dims);
        assert_non_null(t);
        c->out[i] = *t;
    }
}

static void evaluate(nn_case *c, const tensor *in, tensor *out)
{
    rung_error err;
    for (int i = 0; i < c->n_out; i++) {
        out[i] = c->out[i];
        out[i].data = arena_alloc(c->mem, tensor_count(&out[i]) * 8);
        assert_non_null(out[i].data);
    }
    const eval_args a = {c->n, c->opset, in, c->n_in, out, c->n_out, c->mem};
    must(c->n->op->eval(&a, &err), &err);
}

static void magnitudes(nn_case *c, tensor *in)
{
    for (int i = 0; i < c->n_in; i++) {
        in[i] = c->in[i];
        if (in[i].type != RUNG_F32)
            continue;
        const size_t n = tensor_count(&in[i]);
        float *v = arena_copy(c->mem, in[i].data, n * sizeof *v);
        assert_non_null(v);
        for (size_t k = 0; k < n; k++)
            v[k] = fabsf(v[k]);
        in[i].data = v;
    }
}

/* --- layouts ---------------------------------------------------------------------------------- */
size_t nn_place(const operand *o, size_t i)
{
    int64_t at[RUNG_MAX_RANK];
    if (!o->channels_last || o->rank < 3)
        return i;
    for (int d = o->rank - 1; d >= 0; d--) {
        at[d] = (int64_t)(i % (size_t)o->dims[d]);
        i /= (size_t)o->dims[d];
    }
    size_t p = (size_t)at[0];
    for (int d = 2; d < o->rank; d++)
        p = p * (size_t)o->dims[d] + (size_t)at[d];
    return p * (size_t)o->dims[1] + (size_t)at[1];
}

float *nn_stored(nn_case *c, const operand *o, const tensor *t)
{
    const size_t n = tensor_count(t);
    float *v = arena_alloc(c->mem, n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[nn_place(o, i)] = ((const float *)t->data)[i];
    return v;
}

static operand operand_of(const nn_case *c, const tensor *t)
{
    operand o = {.type = t->type, .rank = t->rank, .channels_last = c->channels_last};
    memcpy(o.dims, t->dims, sizeof t->dims);
    return o;
}

void nn_operands(nn_case *c, lowering *l, operand *in, operand *out, arena *mem)
{
    infer(c);
    *l = (lowering){.n = c->n, .opset = c->opset, .in = in, .n_in = c->n_in, .out = out,
                    .n_out = c->n_out, .epi = {.add = -1}, .n_threads = 1, .mem = mem};
    for (int i = 0; i < c->n_in; i++) {
        in[i] = operand_of(c, &c->in[i]);
        in[i].constant = c->constant[i] ? &c->in[i] : NULL;
        in[i].channels_last = c->channels_last && !c->constant[i] && !c->plain[i];
    }
    for (int i = 0; i < c->n_out; i++)
        out[i] = operand_of(c, &c->out[i]);
    if (c->add) {
        in[l->n_in] = out[0];
        l->epi.add = l->n_in++;
    }
    l->epi.clamp = c->clamp;
    l->epi.lo = c->lo;
    l->epi.hi = c->hi;
}

/* --- running ---------------------------------------------------------------------------------- */
static void run(const step *s, void *const *bufs, arena *mem, int n_threads)
{
    void *scratch = arena_alloc(mem, s->scratch_bytes);
    assert_non_null(scratch);
    if (s->library) {
        omp_set_num_threads(n_threads);
        s->run(s, bufs, scratch, 0, 1);
        return;
    }
    for (int t = 0; t < n_threads; t++)
        s->run(s, bufs, scratch, t, n_threads);
}

typedef struct expectation {
    tensor out[NN_MAX], size[NN_MAX]; /* eval, eval of the magnitudes */
    tensor added;
} expectation;

static double allowed(const nn_case *c, const expectation *e, nn_bound b, int out, size_t i)
{
    const double y = ((const float *)e->out[out].data)[i];
    const double add = c->add ? ((const float *)e->added.data)[i] : 0;
    if (b.kind == NN_EXACT)
        return 0;
    if (b.kind == NN_SUM)
        return (b.terms + 8) * FLT_EPSILON *
               (fabs(((const float *)e->size[out].data)[i]) + fabs(add)) + FLT_MIN;
    const double x = b.slack > 0 ? fabs(((const float *)c->in[0].data)[i]) : 0;
    return b.terms * FLT_EPSILON * (fabs(y) + fabs(add) + b.slack * x) + FLT_MIN;
}

static void compare(const nn_case *c, const expectation *e, nn_bound b, const operand *o, int out,
                    const float *y, const char *kernel)
{
    for (size_t i = 0; i < tensor_count(&c->out[out]); i++) {
        float want = ((const float *)e->out[out].data)[i];
        if (c->add)
            want += ((const float *)e->added.data)[i];
        if (c->clamp)
            want = want < c->lo ? c->lo : want > c->hi ? c->hi : want;
        const float got = y[nn_place(o, i)];
        const double most = allowed(c, e, b, out, i);
        if (got == want || (isnan(got) && isnan(want)))
            continue;
        if (!(fabs((double)got - want) <= most))
            fail_msg("%s (%s): element %zu of output %d is %.9g, eval says %.9g, allowed %g",
                     c->n->op_type, kernel, i, out, (double)got, (double)want, most);
    }
}

static float *guarded(nn_case *c, size_t n)
{
    float *v = arena_alloc(c->mem, (n + 2 * GUARD) * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        v[i] = i < GUARD || i >= n + GUARD ? 12345.0f : NAN;
    return v + GUARD;
}

static void check_guards(const float *v, size_t n)
{
    for (size_t i = 0; i < GUARD; i++) {
        if (v[-1 - (ptrdiff_t)i] != 12345.0f || v[n + i] != 12345.0f)
            fail_msg("memory around the output changed");
    }
}

/* As the engine lowers: what only moves elements is done by the movers of ops. */
static rung_status lower(const nn_case *c, const lowering *l, step *s, rung_error *err)
{
    *s = (step){0};
    if (c->training)
        return nn_lower_training(l, s, err);
    return lower_moves(c->n->op) ? c->n->op->lower(l, s, err) : nn_lower(l, s, err);
}

static void lower_and_run(nn_case *c, const expectation *e, nn_bound bound, int n_threads)
{
    lowering l;
    step s;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    void *bufs[2 * NN_MAX] = {NULL};
    arena *mem = arena_new();
    assert_non_null(mem);
    nn_operands(c, &l, in, out, mem);
    l.n_threads = n_threads;
    must(lower(c, &l, &s, &err), &err);
    for (int i = 0; i < c->n_in; i++) {
        if (!c->constant[i] && !c->absent[i])
            bufs[i] = nn_stored(c, &in[i], &c->in[i]);
        else if (lower_moves(c->n->op) || c->training) /* nn_lower's rows keep constants */
            bufs[i] = c->in[i].data;
    }
    if (c->add)
        bufs[l.epi.add] = nn_stored(c, &in[l.epi.add], &e->added);
    for (int again = 0; again < 2; again++) { /* the second time elsewhere */
        for (int i = 0; i < c->n_out; i++)
            bufs[l.n_in + i] = guarded(c, tensor_count(&c->out[i]));
        run(&s, bufs, mem, n_threads);
        for (int i = 0; i < c->n_out; i++) {
            check_guards(bufs[l.n_in + i], tensor_count(&c->out[i]));
            compare(c, e, bound, &out[i], i, bufs[l.n_in + i], s.kernel);
        }
    }
    arena_free(mem);
}

void nn_check(nn_case *c, nn_bound bound)
{
    expectation e = {0};
    tensor sizes[NN_MAX];
    infer(c);
    evaluate(c, c->in, e.out);
    if (bound.kind == NN_SUM) {
        magnitudes(c, sizes);
        evaluate(c, sizes, e.size);
    }
    if (c->add) {
        e.added = *tensor_new(c->mem, RUNG_F32, c->out[0].rank, c->out[0].dims);
        for (size_t i = 0; i < tensor_count(&e.added); i++)
            ((float *)e.added.data)[i] = rng_normal(c->random);
    }
    lower_and_run(c, &e, bound, 1);
    lower_and_run(c, &e, bound, 2);
}

/* --- backward --------------------------------------------------------------------------------- */
typedef struct gradients {
    tensor in[NN_MAX], out[NN_MAX], dout[NN_MAX]; /* as the operator reads them */
    tensor want[NN_MAX], size[NN_MAX];            /* op_def.grad, and that of the magnitudes */
} gradients;

static float *magnitudes_of(nn_case *c, const tensor *t)
{
    const size_t n = tensor_count(t);
    float *v = arena_copy(c->mem, t->data, n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = fabsf(v[i]);
    return v;
}

static void reference(nn_case *c, unsigned wanted, const gradients *g, tensor *din)
{
    rung_error err;
    for (int i = 0; i < c->n_in; i++) {
        din[i] = c->in[i];
        din[i].data = wanted >> i & 1 ? arena_alloc(c->mem, tensor_count(&din[i]) * 4) : NULL;
    }
    const grad_args a = {c->n, c->opset, g->in, c->n_in, g->out, c->n_out, g->dout, din, c->mem};
    assert_non_null(c->n->op->grad);
    must(c->n->op->grad(&a, &err), &err);
}

/* Leaves out what the operator's gradient does not read, and draws dL/doutputs. */
static void make_gradients(nn_case *c, unsigned wanted, nn_bound b, gradients *g)
{
    const grad_reads reads = c->n->op->reads;
    infer(c);
    evaluate(c, c->in, g->out);
    for (int i = 0; i < c->n_in; i++) {
        g->in[i] = c->in[i];
        if (g->in[i].type == RUNG_F32 && !(reads.in >> i & 1))
            g->in[i].data = NULL;
    }
    for (int i = 0; i < c->n_out; i++) {
        g->dout[i] = *tensor_new(c->mem, RUNG_F32, c->out[i].rank, c->out[i].dims);
        for (size_t k = 0; k < tensor_count(&g->dout[i]); k++)
            ((float *)g->dout[i].data)[k] = rng_normal(c->random);
        if (!(reads.out >> i & 1))
            g->out[i].data = NULL;
    }
    reference(c, wanted, g, g->want);
    gradients sizes = *g;
    for (int i = 0; i < c->n_out; i++)
        sizes.dout[i].data = magnitudes_of(c, &g->dout[i]);
    for (int i = 0; i < c->n_in && b.slack == 0; i++) {
        if (g->in[i].type == RUNG_F32 && g->in[i].data)
            sizes.in[i].data = magnitudes_of(c, &g->in[i]);
    }
    if (b.kind == NN_SUM)
        reference(c, wanted, &sizes, g->size);
}

static void compare_gradient(const nn_case *c, const gradients *g, nn_bound b, const operand *o,
                             int in, const float *dx, const char *kernel)
{
    for (size_t i = 0; i < tensor_count(&c->in[in]); i++) {
        const double want = ((const float *)g->want[in].data)[i], got = dx[nn_place(o, i)];
        double most = 0;
        if (b.kind == NN_SUM)
            most = (b.terms + 8) * FLT_EPSILON * fabs(((const float *)g->size[in].data)[i]) +
                   FLT_MIN;
        else if (b.kind == NN_ABSOLUTE)
            most = b.terms * FLT_EPSILON * b.slack;
        else if (b.kind == NN_RELATIVE)
            most = b.terms * FLT_EPSILON *
                   (fabs(want) +
                    (b.slack > 0 ? b.slack * fabs(((const float *)g->dout[0].data)[i]) : 0));
        if (!(fabs(got - want) <= most))
            fail_msg("%s (%s): element %zu of dL/dinput %d is %.9g, grad says %.9g, allowed %g",
                     c->n->op_type, kernel, i, in, got, want, most);
    }
}

static void *stored_if_there(nn_case *c, const operand *o, const tensor *t)
{
    if (!t->data || t->type != RUNG_F32)
        return t->data;
    return nn_stored(c, o, t);
}

static void run_backward(const step *s, void *const *bufs, arena *mem, int n_threads, bool lane)
{
    if (!lane) {
        run(s, bufs, mem, n_threads);
        return;
    }
    void *scratch = arena_alloc(mem, s->scratch_bytes);
    assert_non_null(scratch);
#pragma omp parallel num_threads(2)
    {
        if (omp_get_thread_num() == 0)
            s->run(s, bufs, scratch, 0, 1);
    }
}

/* lane: lowered for one thread, and run inside a parallel region. */
static void backward_and_compare(nn_case *c, unsigned wanted, const gradients *g, nn_bound b,
                                 int n_threads, bool lane)
{
    lowering l;
    step s;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    void *bufs[4 * NN_MAX] = {NULL};
    arena *mem = arena_new();
    assert_non_null(mem);
    nn_operands(c, &l, in, out, mem);
    l.n_threads = n_threads;
    omp_set_num_threads(2);
    must(nn_lower_backward(&l, wanted, &s, &err), &err);
    void **dout = bufs + c->n_in + c->n_out, **din = dout + c->n_out;
    for (int i = 0; i < c->n_in; i++)
        bufs[i] = c->absent[i] ? NULL : stored_if_there(c, &in[i], &g->in[i]);
    for (int i = 0; i < c->n_out; i++) {
        bufs[c->n_in + i] = stored_if_there(c, &out[i], &g->out[i]);
        dout[i] = nn_stored(c, &out[i], &g->dout[i]);
    }
    for (int again = 0; again < 2; again++) { /* the second time elsewhere */
        for (int i = 0; i < c->n_in; i++)
            din[i] = wanted >> i & 1 ? guarded(c, tensor_count(&c->in[i])) : NULL;
        run_backward(&s, bufs, mem, n_threads, lane);
        for (int i = 0; i < c->n_in; i++) {
            if (!din[i])
                continue;
            check_guards(din[i], tensor_count(&c->in[i]));
            compare_gradient(c, g, b, &in[i], i, din[i], s.kernel);
        }
    }
    arena_free(mem);
}

void nn_check_backward(nn_case *c, unsigned wanted, nn_bound bound)
{
    gradients g = {0};
    make_gradients(c, wanted, bound, &g);
    backward_and_compare(c, wanted, &g, bound, 1, false);
    backward_and_compare(c, wanted, &g, bound, 2, false);
    backward_and_compare(c, wanted, &g, bound, 1, true);
}

void nn_check_status(nn_case *c, rung_status want)
{
    lowering l;
    step s;
    rung_error err;
    operand in[NN_MAX], out[NN_MAX];
    nn_operands(c, &l, in, out, c->mem);
    const rung_status st = lower(c, &l, &s, &err);
    if (st != want)
        fail_msg("%s: status %d, not %d", c->n->op_type, (int)st, (int)want);
}

void nn_check_memory(nn_case *c)
{
    operand in[NN_MAX], out[NN_MAX];
    rung_status st = RUNG_EMEMORY;
    for (long k = 0; st != RUNG_OK; k++) {
        lowering l;
        step s;
        rung_error err;
        arena *mem = arena_new();
        assert_non_null(mem);
        nn_operands(c, &l, in, out, mem);
        mem_fail_after(k);
        st = lower(c, &l, &s, &err);
        mem_fail_after(-1);
        arena_free(mem);
        if (st != RUNG_OK && st != RUNG_EMEMORY)
            fail_msg("%s: allocation %ld fails: %s", c->n->op_type, k, err.message);
    }
}

/* --- random choices --------------------------------------------------------------------------- */
int64_t nn_between(rng *r, int64_t lo, int64_t hi)
{
    return lo + (int64_t)rng_below(r, (uint64_t)(hi - lo + 1));
}

bool nn_chance(rng *r, int one_in)
{
    return rng_below(r, (uint64_t)one_in) == 0;
}

void nn_random_epilogue(nn_case *c, bool add)
{
    c->add = add && nn_chance(c->random, 2);
    c->clamp = nn_chance(c->random, 2);
    c->lo = nn_chance(c->random, 3) ? -INFINITY : nn_chance(c->random, 2) ? 0.0f : -0.5f;
    c->hi = nn_chance(c->random, 2) ? INFINITY : 1.5f;
}

int nn_seed(void **state)
{
    static rng r;
    const char *text = getenv("RUNG_TEST_SEED");
    const uint64_t s = text ? strtoull(text, NULL, 0) : 1;
    rng_seed(&r, s);
    print_message("seed %llu\n", (unsigned long long)s);
    *state = &r;
    return 0;
}
