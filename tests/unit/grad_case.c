#include "grad_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ops/ops.h"

enum { TABLE_MAX = 256 };
static struct {
    bool       seen;
    grad_reads needed;
} shown[TABLE_MAX]; /* by index in op_table */

static size_t table_index(const op_def *op)
{
    size_t i = 0;
    while (op_table[i] != op)
        i++;
    assert_true(i < TABLE_MAX);
    return i;
}

bool case_seen(const op_def *op, grad_reads *needed)
{
    const size_t i = table_index(op);
    *needed = shown[i].needed;
    return shown[i].seen;
}

/* --- building --------------------------------------------------------------------------------- */
void case_begin(grad_case *c, const char *op, int64_t version, int n_out)
{
    memset(c, 0, sizeof *c);
    c->mem = arena_new();
    assert_non_null(c->mem);
    rng_seed(&c->r, 11);
    c->opset = version;
    c->step = 0x1p-16;
    c->n = (node){.op = op_find(op, ""), .op_type = op, .name = "", .domain = ""};
    assert_non_null(c->n.op);
    c->n.attrs = c->attrs;
    c->n.inputs = c->ids;
    c->n.outputs = c->out_ids;
    c->n.n_outputs = n_out;
}

static tensor *next_input(grad_case *c, dtype type, int rank, const int64_t *dims)
{
    assert_true(c->n.n_inputs < CASE_IN);
    tensor *t = tensor_new(c->mem, type, rank, dims);
    assert_non_null(t);
    c->in[c->n.n_inputs] = *t;
    return &c->in[c->n.n_inputs++];
}

void case_between(grad_case *c, double lo, double hi, int rank, const int64_t *dims)
{
    tensor *t = next_input(c, RUNG_F32, rank, dims);
    const size_t n = tensor_count(t);
    for (size_t i = 0; i < n; i++)
        ((float *)t->data)[i] = (float)(lo + (hi - lo) * rng_uniform(&c->r));
    c->wanted[c->n.n_inputs - 1] = true;
}

void case_input(grad_case *c, int rank, const int64_t *dims)
{
    case_between(c, -2, 2, rank, dims);
}

void case_exact(grad_case *c, int rank, const int64_t *dims)
{
    tensor *t = next_input(c, RUNG_F32, rank, dims);
    const size_t n = tensor_count(t);
    for (size_t i = 0; i < n; i++)
        ((float *)t->data)[i] = ((float)rng_below(&c->r, 33) - 16) / 8;
    c->wanted[c->n.n_inputs - 1] = true;
    c->exact = true;
    c->step = 1;
}

static void copy_in(grad_case *c, dtype type, int rank, const int64_t *dims, const void *v)
{
    tensor *t = next_input(c, type, rank, dims);
    memcpy(t->data, v, dtype_bytes(type, tensor_count(t)));
}

void case_values(grad_case *c, int rank, const int64_t *dims, const float *v)
{
    copy_in(c, RUNG_F32, rank, dims, v);
    c->wanted[c->n.n_inputs - 1] = true;
}

void case_ints(grad_case *c, int rank, const int64_t *dims, const int64_t *v)
{
    copy_in(c, RUNG_I64, rank, dims, v);
}

void case_bools(grad_case *c, int rank, const int64_t *dims, const uint8_t *v)
{
    copy_in(c, RUNG_BOOL, rank, dims, v);
}

void case_parameters(grad_case *c, int rank, const int64_t *dims, const float *v)
{
    copy_in(c, RUNG_F32, rank, dims, v);
}

void case_absent(grad_case *c)
{
    assert_true(c->n.n_inputs < CASE_IN);
    c->ids[c->n.n_inputs++] = -1;
}

void case_coarse(grad_case *c)
{
    c->step = 0x1p-8;
}

static attr *next_attr(grad_case *c, const char *name, attr_kind kind)
{
    assert_true(c->n.n_attrs < CASE_ATTRS);
    c->attrs[c->n.n_attrs] = (attr){.name = name, .kind = kind};
    return &c->attrs[c->n.n_attrs++];
}

void case_int_attr(grad_case *c, const char *name, int64_t v)
{
    next_attr(c, name, ATTR_INT)->i = v;
}

void case_ints_attr(grad_case *c, const char *name, int n, const int64_t *v)
{
    attr *a = next_attr(c, name, ATTR_INTS);
    a->ints.v = arena_copy(c->mem, v, (size_t)n * sizeof *v);
    a->ints.n = (size_t)n;
    assert_non_null(a->ints.v);
}

void case_float_attr(grad_case *c, const char *name, float v)
{
    next_attr(c, name, ATTR_FLOAT)->f = v;
}

void case_string_attr(grad_case *c, const char *name, const char *v)
{
    attr *a = next_attr(c, name, ATTR_STRING);
    a->s.data = (const unsigned char *)v;
    a->s.size = strlen(v);
}

/* --- evaluation ------------------------------------------------------------------------------- */
/* Shapes and results for these inputs, in mem. */
static void evaluate(const grad_case *c, const tensor *in, tensor *out, arena *mem)
{
    value_info info[CASE_IN], result[CASE_OUT];
    const value_info *operands[16] = {NULL};
    rung_error err = {""};
    for (int i = 0; i < c->n.n_inputs; i++) {
        if (!in[i].data)
            continue;
        info[i] = (value_info){.type = in[i].type, .rank = in[i].rank, .data = &in[i]};
        memcpy(info[i].dims, in[i].dims, sizeof in[i].dims);
        operands[i] = &info[i];
    }
    for (int i = 0; i < CASE_OUT; i++)
        result[i] = (value_info){.rank = -1};
    const infer_args ia = {&c->n, c->opset, operands, result, mem};
    if (c->n.op->infer(&ia, &err) != RUNG_OK)
        fail_msg("%s: infer: %s", c->n.op_type, err.message);
    for (int i = 0; i < c->n.n_outputs; i++) {
        assert_true(result[i].rank >= 0);
        const tensor *t = tensor_new(mem, result[i].type, result[i].rank, result[i].dims);
        assert_non_null(t);
        out[i] = *t;
    }
    const eval_args ea = {&c->n, c->opset, in, c->n.n_inputs, out, c->n.n_outputs, mem};
    if (c->n.op->eval(&ea, &err) != RUNG_OK)
        fail_msg("%s: eval: %s", c->n.op_type, err.message);
}

/* L = the sum of dout * out; *error: what rounding the results to their type may add. */
static double loss(const grad_case *c, const tensor *in, double *error)
{
    tensor out[CASE_OUT];
    double sum = 0;
    arena *mem = arena_new();
    assert_non_null(mem);
    evaluate(c, in, out, mem);
    *error = 0;
    for (int i = 0; i < c->n.n_outputs; i++) {
        const size_t n = c->dout[i].data ? tensor_count(&out[i]) : 0;
        const double epsilon = out[i].type == RUNG_F32 ? FLT_EPSILON : DBL_EPSILON;
        for (size_t k = 0; k < n; k++) {
            const double term = tensor_get(&out[i], k) * tensor_get(&c->dout[i], k);
            sum += term;
            *error += c->exact ? 0 : epsilon * fabs(term);
        }
    }
    arena_free(mem);
    return sum;
}

/* --- differences ------------------------------------------------------------------------------ */
typedef struct slope {
    double value, bound; /* bound: of its error */
} slope;

static void set(tensor *t, size_t k, double v)
{
    if (t->type == RUNG_F32)
        ((float *)t->data)[k] = (float)v;
    else
        ((double *)t->data)[k] = v;
}

/* dL/d in[i][k] by a central difference; in: float64 copies. The difference with twice the step
 * bounds what the third derivative adds. */
static slope difference(const grad_case *c, tensor *in, int i, size_t k)
{
    static const double steps[] = {1, -1, 2, -2};
    const double h = c->step, own = tensor_get(&in[i], k);
    double at[4], d[2], error = 0;
    for (int s = 0; s < 4; s++) {
        set(&in[i], k, own + h * steps[s]);
        at[s] = loss(c, in, &error);
    }
    set(&in[i], k, own);
    d[0] = (at[0] - at[1]) / (2 * h);
    d[1] = (at[2] - at[3]) / (4 * h);
    return (slope){d[0], fabs(d[1] - d[0]) + error / h};
}

/* Copies for differences: float64 where operators keep it, float32 where sums are exact. */
static void copy_inputs(const grad_case *c, tensor *in)
{
    for (int i = 0; i < c->n.n_inputs; i++) {
        in[i] = c->in[i];
        if (!in[i].data || in[i].type != RUNG_F32)
            continue;
        const dtype type = c->exact ? RUNG_F32 : RUNG_F64;
        const tensor *t = tensor_new(c->mem, type, in[i].rank, in[i].dims);
        assert_non_null(t);
        const size_t n = tensor_count(t);
        in[i] = *t;
        for (size_t k = 0; k < n; k++)
            set(&in[i], k, tensor_get(&c->in[i], k));
    }
}

/* A gradient is a sum of at most as many float32 terms as there are results, each of a few
 * roundings; its terms are about as large as the greatest gradient or dL/dy. */
static void compare(const grad_case *c, const tensor *din, int i, tensor *in)
{
    const size_t n = tensor_count(&din[i]);
    size_t terms = 32;
    double most = 0;
    slope *want = calloc(n + 1, sizeof *want);
    assert_non_null(want);
    for (int o = 0; o < c->n.n_outputs; o++) {
        const size_t count = c->dout[o].data ? tensor_count(&c->dout[o]) : 0;
        terms += count;
        for (size_t k = 0; k < count; k++)
            most = fmax(most, fabs(tensor_get(&c->dout[o], k)));
    }
    for (size_t k = 0; k < n; k++) {
        want[k] = difference(c, in, i, k);
        most = fmax(most, fabs(want[k].value));
    }
    for (size_t k = 0; k < n; k++) {
        const double have = ((const float *)din[i].data)[k];
        const double bound = (double)terms * FLT_EPSILON * most;
        if (want[k].bound > 1e-3 * most)
            fail_msg("%s: input %d[%zu] stands at a kink", c->n.op_type, i, k);
        if (!(fabs(have - want[k].value) <= bound + want[k].bound))
            fail_msg("%s: dL/d input %d[%zu] is %g, the difference says %g (+- %g)", c->n.op_type,
                     i, k, have, want[k].value, bound + want[k].bound);
    }
    free(want);
}

/* --- running the gradient --------------------------------------------------------------------- */
/* Memory for the gradients that are wanted (bit i), garbage before. */
static void make_din(const grad_case *c, unsigned wanted, tensor *din)
{
    memset(din, 0, 16 * sizeof *din);
    for (int i = 0; i < c->n.n_inputs; i++) {
        din[i] = c->in[i];
        din[i].data = NULL;
        if (!(wanted & 1u << i))
            continue;
        const tensor *t = tensor_new(c->mem, RUNG_F32, c->in[i].rank, c->in[i].dims);
        assert_non_null(t);
        din[i] = *t;
        memset(t->data, 0xff, tensor_count(t) * sizeof(float));
    }
}

static rung_status try_run(const grad_case *c, const tensor *in, const tensor *out,
                           const tensor *dout, tensor *din, rung_error *err)
{
    const grad_args a = {.n = &c->n, .opset = c->opset, .in = in, .n_in = c->n.n_inputs,
                         .out = out, .n_out = c->n.n_outputs, .dout = dout, .din = din,
                         .mem = c->mem};
    return c->n.op->grad(&a, err);
}

static void run(const grad_case *c, const tensor *in, const tensor *out, const tensor *dout,
                unsigned wanted, tensor *din)
{
    rung_error err = {""};
    make_din(c, wanted, din);
    if (try_run(c, in, out, dout, din, &err) != RUNG_OK)
        fail_msg("%s: grad: %s", c->n.op_type, err.message);
}

/* Whether the gradients named by the mask are the same to the byte. */
static bool same(const grad_case *c, const tensor *a, const tensor *b, unsigned mask)
{
    for (int i = 0; i < c->n.n_inputs; i++) {
        if ((mask & 1u << i) && memcmp(a[i].data, b[i].data, tensor_count(&a[i]) * 4) != 0)
            return false;
    }
    return true;
}

/* A copy in which every float is NaN and every boolean is flipped; other types stay as they are. */
static tensor poisoned(const grad_case *c, const tensor *t)
{
    tensor *p = tensor_copy(c->mem, t);
    assert_non_null(p);
    const size_t n = tensor_count(p);
    for (size_t i = 0; i < n; i++) {
        if (p->type == RUNG_F32)
            ((float *)p->data)[i] = NAN;
        if (p->type == RUNG_BOOL)
            ((uint8_t *)p->data)[i] ^= 1;
    }
    return *p;
}

static bool readable(const tensor *t)
{
    return t->data && (t->type == RUNG_F32 || t->type == RUNG_BOOL);
}

/* What reads do not name may be NaN, or not be there; what they name makes a difference. */
static void check_reads(grad_case *c, unsigned wanted, const tensor *right)
{
    tensor in[2][16] = {{{0}}}, out[2][CASE_OUT] = {{{0}}}, din[16];
    const grad_reads reads = c->n.op->reads;
    const size_t entry = table_index(c->n.op);
    for (int k = 0; k < 2; k++) { /* NaN, absent */
        memcpy(in[k], c->in, sizeof c->in);
        memcpy(out[k], c->out, sizeof c->out);
        for (int i = 0; i < c->n.n_inputs; i++) {
            if (readable(&in[k][i]) && !(reads.in & 1u << i) && k == 0)
                in[k][i] = poisoned(c, &in[k][i]);
            else if (readable(&in[k][i]) && !(reads.in & 1u << i))
                in[k][i].data = NULL;
        }
        for (int i = 0; i < c->n.n_outputs; i++) {
            if (!(reads.out & 1u << i) && k == 0)
                out[k][i] = poisoned(c, &out[k][i]);
            else if (!(reads.out & 1u << i))
                out[k][i].data = NULL;
        }
        run(c, in[k], out[k], c->dout, wanted, din);
        if (!same(c, din, right, wanted))
            fail_msg("%s reads what its `reads` do not name", c->n.op_type);
    }
    for (int i = 0; i < c->n.n_inputs + c->n.n_outputs; i++) {
        const int o = i - c->n.n_inputs;
        tensor *t = o < 0 ? &in[1][i] : &out[1][o];
        const tensor own = *t;
        if (!readable(t))
            continue;
        *t = poisoned(c, t);
        make_din(c, wanted, din);
        const rung_status st = try_run(c, in[1], out[1], c->dout, din, NULL);
        *t = own;
        if (st == RUNG_OK && same(c, din, right, wanted)) /* NaN may be refused */
            continue;
        if (o < 0)
            shown[entry].needed.in |= 1u << i;
        else
            shown[entry].needed.out |= 1u << o;
    }
    shown[entry].seen = true;
}

/* Each operand wanted alone, and each output's gradient absent instead of zero. */
static void check_selection(grad_case *c, unsigned wanted, const tensor *right)
{
    tensor din[16], zeros[16], dout[CASE_OUT], zeroed[CASE_OUT];
    for (int i = 0; i < c->n.n_inputs; i++) {
        if (!(wanted & 1u << i))
            continue;
        run(c, c->in, c->out, c->dout, 1u << i, din);
        if (!same(c, din, right, 1u << i))
            fail_msg("%s: input %d's gradient alone is another", c->n.op_type, i);
    }
    for (int i = 0; i < c->n.n_outputs; i++) {
        memcpy(dout, c->dout, sizeof dout);
        memcpy(zeroed, c->dout, sizeof zeroed);
        if (!dout[i].data)
            continue;
        zeroed[i].data = arena_zero(c->mem, tensor_count(&dout[i]) + 1, sizeof(float));
        dout[i].data = NULL;
        assert_non_null(zeroed[i].data);
        run(c, c->in, c->out, dout, wanted, din);
        run(c, c->in, c->out, zeroed, wanted, zeros);
        for (int k = 0; k < c->n.n_inputs; k++) { /* -0 is as good as 0 */
            const size_t n = wanted & 1u << k ? tensor_count(&din[k]) : 0;
            for (size_t e = 0; e < n; e++)
                assert_true(((float *)din[k].data)[e] == ((float *)zeros[k].data)[e]);
        }
    }
}

/* Each allocation fails in turn: the gradient says so. */
static void check_memory(grad_case *c, unsigned wanted)
{
    rung_status st = RUNG_EMEMORY;
    for (long n = 0; st != RUNG_OK; n++) {
        tensor din[16];
        rung_error err = {""};
        arena *mem = arena_new(), *own = c->mem;
        assert_non_null(mem);
        make_din(c, wanted, din);
        c->mem = mem;
        mem_fail_after(n);
        st = try_run(c, c->in, c->out, c->dout, din, &err);
        mem_fail_after(-1);
        c->mem = own;
        arena_free(mem);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        assert_true(st == RUNG_OK || strlen(err.message) > 0);
    }
}

/* --- the check -------------------------------------------------------------------------------- */
static unsigned wanted_mask(const grad_case *c)
{
    unsigned wanted = 0;
    for (int i = 0; i < c->n.n_inputs; i++)
        wanted |= c->wanted[i] ? 1u << i : 0;
    assert_true(wanted != 0);
    return wanted;
}

static void fill_dout(grad_case *c, bool ones)
{
    for (int i = 0; i < c->n.n_outputs; i++) {
        c->dout[i] = c->out[i];
        c->dout[i].data = NULL;
        if (c->out[i].type != RUNG_F32)
            continue;
        const size_t n = tensor_count(&c->out[i]);
        float *v = arena_zero(c->mem, n + 1, sizeof *v);
        assert_non_null(v);
        for (size_t k = 0; k < n; k++)
            v[k] = ones ? 1 : ((float)rng_below(&c->r, 33) - 16) / 8;
        c->dout[i].data = v;
    }
}

void case_check(grad_case *c)
{
    tensor in[16] = {{0}}, din[16];
    const unsigned wanted = wanted_mask(c);
    assert_non_null(c->n.op->grad);
    evaluate(c, c->in, c->out, c->mem);
    fill_dout(c, false);
    run(c, c->in, c->out, c->dout, wanted, din);
    copy_inputs(c, in);
    for (int i = 0; i < c->n.n_inputs; i++) {
        if (c->wanted[i])
            compare(c, din, i, in);
    }
    check_reads(c, wanted, din);
    check_selection(c, wanted, din);
    check_memory(c, wanted);
    case_end(c);
}

void case_expect(grad_case *c, int i, const float *v)
{
    tensor din[16];
    evaluate(c, c->in, c->out, c->mem);
    fill_dout(c, true);
    run(c, c->in, c->out, c->dout, wanted_mask(c), din);
    const size_t n = tensor_count(&din[i]);
    for (size_t k = 0; k < n; k++) {
        const float have = ((const float *)din[i].data)[k];
        if (have != v[k])
            fail_msg("%s: dL/d input %d[%zu] is %g, not %g", c->n.op_type, i, k, (double)have,
                     (double)v[k]);
    }
}

void case_end(grad_case *c)
{
    arena_free(c->mem);
    c->mem = NULL;
}
