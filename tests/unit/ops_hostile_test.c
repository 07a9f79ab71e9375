/* Every operator on random nonsense: types, shapes, attributes, contents, and outputs declared with
 * other shapes. Infer, eval and grad may refuse, but not crash (run it under the sanitizers). */
#include "unit.h"

#include <string.h>

#include "base/rng.h"
#include "ops/ops.h"

enum { ROUNDS = 10000, MOST = 4096, N_IN = 5, N_OUT = 3, N_ATTRS = 5 };

static const char *const int_names[] = {
    "axis",
    "group",
    "ceil_mode",
    "count_include_pad",
    "storage_order",
    "keepdims",
    "block_size",
    "blocksize",
    "num_groups",
    "size",
    "p",
    "to",
    "output_dtype",
    "num_outputs",
    "transA",
    "transB",
    "allowzero",
    "start",
    "end",
    "select_last_index",
    "fmod",
    "noop_with_empty_axes",
    "training_mode",
    "exclude_outside",
    "antialias",
    "reverse",
    "exclusive",
    "largest",
    "batch_dims",
    "upper",
};
static const char *const ints_names[] = {
    "kernel_shape", "strides", "dilations", "pads",  "output_padding",
    "output_shape", "axes",    "perm",      "split", "value_ints",
};
static const char *const string_names[] = {
    "auto_pad", "mode", "nearest_mode", "coordinate_transformation_mode", "approximate",
    "keep_aspect_ratio_policy", "reduction", "direction",
};
static const char *const strings[] = {
    "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "cubic", "nearest", "reflect", "edge", "wrap",
    "CRD", "align_corners", "asymmetric", "floor", "ceil", "not_larger", "not_smaller", "tanh",
    "half_pixel_symmetric", "add", "mul", "reverse", "bidirectional", "nonsense",
};
static const char *const float_names[] = {"alpha", "beta",        "epsilon",      "gamma",
                                          "bias",  "value_float", "cubic_coeff_a"};
#define PICK(r, list) (list)[rng_below(r, sizeof(list) / sizeof *(list))]

/* Mostly small, sometimes what overflows. */
static int64_t random_int(rng *r)
{
    static const int64_t extreme[] = {INT64_MIN, INT64_MAX, INT64_C(1) << 31, (1 << 30) - 1,
                                      INT64_C(1) << 62, -(INT64_C(1) << 31), INT64_MIN + 1};
    if (rng_below(r, 16) == 0)
        return PICK(r, extreme);
    return (int64_t)rng_below(r, 7) - (rng_below(r, 3) == 0 ? 4 : 0);
}

static void random_attr(rng *r, attr *a, arena *mem)
{
    int64_t *v = arena_zero(mem, 16, sizeof *v);
    memset(a, 0, sizeof *a);
    switch (rng_below(r, 6)) {
    case 0:
    case 1:
        *a = (attr){.name = PICK(r, int_names), .kind = ATTR_INT};
        a->i = random_int(r);
        break;
    case 2:
    case 3:
        *a = (attr){.name = PICK(r, ints_names), .kind = ATTR_INTS};
        a->ints.n = rng_below(r, 3) ? 2 + 2 * rng_below(r, 2) : rng_below(r, 10);
        for (size_t i = 0; i < a->ints.n; i++)
            v[i] = random_int(r);
        a->ints.v = v;
        break;
    case 4:
        *a = (attr){.name = PICK(r, string_names), .kind = ATTR_STRING};
        a->s.data = (const unsigned char *)PICK(r, strings);
        a->s.size = strlen((const char *)a->s.data);
        break;
    default:
        *a = (attr){.name = PICK(r, float_names), .kind = ATTR_FLOAT};
        a->f = (float)random_int(r) / 2;
    }
}

/* What some operators never run without. */
static int needed_attrs(rng *r, int spatial, attr *a, arena *mem)
{
    static const char *const names[] = {"size", "blocksize", "num_groups"};
    int64_t *kernel = arena_zero(mem, RUNG_MAX_RANK, sizeof *kernel);
    for (int i = 0; i < spatial; i++)
        kernel[i] = 1 + (int64_t)rng_below(r, 2);
    a[0] = (attr){.name = "kernel_shape", .kind = ATTR_INTS};
    a[0].ints.v = kernel;
    a[0].ints.n = spatial > 0 ? (size_t)spatial : 0;
    a[1] = (attr){.name = PICK(r, names), .kind = ATTR_INT};
    a[1].i = 1 + (int64_t)rng_below(r, 2);
    return 2;
}

static void random_dims(rng *r, int *rank, int64_t *dims)
{
    *rank = (int)rng_below(r, 10) ? (int)rng_below(r, 6) : (int)rng_below(r, RUNG_MAX_RANK + 1);
    for (int i = 0; i < *rank; i++)
        dims[i] = rng_below(r, 20) ? 1 + (int64_t)rng_below(r, 4) : 0;
}

/* A tensor of a random type, or of `like`'s type and mostly its shape (vectors: of its channels).
 */
static tensor *random_tensor(rng *r, const tensor *like, bool vectors, arena *mem)
{
    static const dtype common[] = {RUNG_F32, RUNG_F32, RUNG_F32, RUNG_I64,
                                   RUNG_U8,  RUNG_I8,  RUNG_BOOL};
    int64_t dims[RUNG_MAX_RANK];
    int rank;
    dtype type = rng_below(r, 6) ? PICK(r, common) : (dtype)rng_below(r, RUNG_I2 + 1);
    random_dims(r, &rank, dims);
    if (like && rng_below(r, 2)) {
        type = like->type;
        if (rng_below(r, 3)) {
            rank = like->rank;
            memcpy(dims, like->dims, sizeof dims);
        }
    } else if (like && rng_below(r, 2)) { /* a vector of int64: axes, shapes, indices */
        type = RUNG_I64;
        rank = 1;
        dims[0] = like->rank;
    }
    if (vectors && like && like->rank > 1) { /* one a channel */
        type = like->type;
        rank = 1;
        dims[0] = like->dims[1];
    }
    if (type == RUNG_STRING || type == RUNG_UNDEFINED)
        type = RUNG_F32;
    tensor *t = tensor_new(mem, type, rank, dims);
    assert_non_null(t);
    const size_t n = tensor_count(t), size = dtype_bytes(type, n);
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)t->data)[i] = (uint8_t)(type == RUNG_BOOL ? rng_below(r, 2) : rng_next(r));
    for (size_t i = 0; i < n && type == RUNG_F32; i++)
        ((float *)t->data)[i] = rng_below(r, 30) ? (float)random_int(r) / 2 : (float)(0.0 / 0.0);
    for (size_t i = 0; i < n && type == RUNG_I64; i++)
        ((int64_t *)t->data)[i] = random_int(r);
    return t;
}

typedef struct trial {
    node              n;
    attr              attrs[N_ATTRS];
    int               ids[N_IN];
    tensor            in[N_IN], out[N_OUT];
    value_info        info[N_IN], result[N_OUT];
    const value_info *operands[N_IN];
} trial;

static void random_trial(rng *r, trial *t, const op_def *op, arena *mem)
{
    memset(t, 0, sizeof *t);
    t->n = (node){.op = op, .name = "", .op_type = op->name, .domain = "", .attrs = t->attrs};
    t->n.inputs = t->n.outputs = t->ids;
    t->n.n_attrs = (int)rng_below(r, N_ATTRS + 1);
    t->n.n_outputs = rng_below(r, 3) ? 1 : 1 + (int)rng_below(r, N_OUT);
    t->n.n_inputs = (int)rng_below(r, N_IN + 1);
    const bool vectors = rng_below(r, 4) == 0;
    for (int i = 0; i < t->n.n_inputs; i++) {
        if (!vectors && rng_below(r, 8) == 0)
            continue; /* absent */
        t->in[i] = *random_tensor(r, i ? &t->in[0] : NULL, vectors, mem);
        t->info[i] = (value_info){.type = t->in[i].type, .rank = t->in[i].rank};
        memcpy(t->info[i].dims, t->in[i].dims, sizeof t->in[i].dims);
        t->info[i].data = rng_below(r, 3) ? &t->in[i] : NULL;
        t->operands[i] = &t->info[i];
    }
    const int fixed = t->n.n_attrs > 1 && rng_below(r, 2)
                          ? needed_attrs(r, t->in[0].rank - 2, t->attrs, mem) : 0;
    for (int i = fixed; i < t->n.n_attrs; i++)
        random_attr(r, &t->attrs[i], mem);
    for (int i = 0; i < N_OUT; i++)
        t->result[i] = (value_info){.rank = -1};
}

/* Memory for the outputs; what infer left open is declared at random. False: too large to run. */
static bool place_outputs(rng *r, trial *t, arena *mem)
{
    for (int i = 0; i < t->n.n_outputs; i++) {
        value_info *v = &t->result[i];
        int rank;
        int64_t dims[RUNG_MAX_RANK];
        random_dims(r, &rank, dims);
        if (v->type == RUNG_UNDEFINED || dtype_bytes(v->type, 1) == 0)
            return false;
        if (v->rank < 0)
            v->rank = rank;
        for (int d = 0; d < v->rank; d++) {
            if (v->dims[d] == DIM_UNKNOWN || v->rank == rank)
                v->dims[d] = v->dims[d] == DIM_UNKNOWN ? (int64_t)rng_below(r, 5) : v->dims[d];
        }
        if (dims_count(v->rank, v->dims) > MOST)
            return false;
        const tensor *out = tensor_new(mem, v->type, v->rank, v->dims);
        assert_non_null(out);
        t->out[i] = *out;
        if (i > 0 && rng_below(r, 3) == 0)
            t->out[i].data = NULL; /* absent */
    }
    return true;
}

/* Float32 with the dims of t; data = NULL one time in four. */
static tensor random_grad(rng *r, const tensor *t, arena *mem)
{
    tensor g = *t;
    const size_t n = t->data ? tensor_count(t) : 0;
    g.type = RUNG_F32;
    g.data = t->data && rng_below(r, 4) ? arena_zero(mem, n + 1, sizeof(float)) : NULL;
    for (size_t i = 0; g.data && i < n; i++)
        ((float *)g.data)[i] = (float)random_int(r) / 2;
    return g;
}

/* The gradient of what eval accepted: what is not read is not there. */
static rung_status try_grad(rng *r, trial *t, int64_t version, arena *mem, rung_error *err)
{
    tensor dout[N_OUT], din[N_IN];
    const op_def *op = t->n.op;
    for (int i = 0; i < t->n.n_outputs; i++) {
        dout[i] = random_grad(r, &t->out[i], mem);
        if (!(op->reads.out & 1u << i))
            t->out[i].data = NULL;
    }
    for (int i = 0; i < t->n.n_inputs; i++) {
        din[i] = random_grad(r, &t->in[i], mem);
        if (t->in[i].type != RUNG_F32 && rng_below(r, 20))
            din[i].data = NULL; /* not asked for, mostly */
        if (dtype_is_float(t->in[i].type) && !(op->reads.in & 1u << i))
            t->in[i].data = NULL;
    }
    const grad_args a = {.n = &t->n, .opset = version, .in = t->in, .n_in = t->n.n_inputs,
                         .out = t->out, .n_out = t->n.n_outputs, .dout = dout, .din = din,
                         .mem = mem};
    return op->grad(&a, err);
}

/* Whether the trial got as far as an eval that succeeded; *graded: and a gradient too. */
static bool try_once(rng *r, const op_def *op, int64_t version, int *graded)
{
    rung_error err = {""};
    bool ran = false;
    trial t;
    arena *mem = arena_new();
    assert_non_null(mem);
    random_trial(r, &t, op, mem);
    const infer_args a = {&t.n, version, t.operands, t.result, mem};
    rung_status st = op->infer(&a, &err);
    if (st == RUNG_OK && place_outputs(r, &t, mem)) {
        const eval_args e = {&t.n, version, t.in, t.n.n_inputs, t.out, t.n.n_outputs, mem};
        st = op->eval(&e, &err);
        ran = st == RUNG_OK;
        if (ran && op->grad) {
            st = try_grad(r, &t, version, mem, &err);
            *graded += st == RUNG_OK;
        }
    }
    assert_true(st == RUNG_OK || strlen(err.message) > 0);
    arena_free(mem);
    return ran;
}

static void test_nonsense(void **state)
{
    for (size_t i = 0; op_table[i]; i++) {
        rng r;
        int ran = 0, graded = 0;
        rng_seed(&r, 7 + i);
        for (int k = 0; k < ROUNDS; k++)
            ran += try_once(&r, op_table[i], k % 2 ? 13 : 24, &graded);
        if (ran == 0)
            fail_msg("%s never ran: the trials are too wild", op_table[i]->name);
        if (graded == 0 && op_table[i]->grad)
            fail_msg("the gradient of %s never ran", op_table[i]->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
