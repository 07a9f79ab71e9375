/* TopK and CumSum: what depends on the order of the elements along one axis. */
#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"

/* One line of the axis: n elements `inner` apart. */
typedef struct line {
    size_t first, n, inner;
} line;

static line line_at(const tensor *x, int axis, size_t i)
{
    const size_t n = (size_t)x->dims[axis], inner = dims_product(x->dims, axis + 1, x->rank);
    return (line){i / inner * n * inner + i % inner, n, inner};
}

static size_t count_lines(const tensor *x, int axis)
{
    return dims_product(x->dims, 0, axis) * dims_product(x->dims, axis + 1, x->rank);
}

/* --- TopK ------------------------------------------------------------------------------------- */
static rung_status top_k_infer(const infer_args *a, rung_error *err)
{
    int axis = 0;
    int64_t k = DIM_UNKNOWN, dims[RUNG_MAX_RANK];
    size_t n = 0;
    rung_status st;
    if ((st = op_counts(a, 2, 2, 2, err)) || (st = op_type(a, 0, TYPES_NUMBER, err)) ||
        (st = op_type(a, 1, TYPE(RUNG_I64), err)) || (st = op_min_rank(a, 0, 1, err)))
        return st;
    const value_info *x = a->in[0];
    a->out[0].type = x->type;
    if (a->n->n_outputs > 1)
        a->out[1].type = RUNG_I64;
    if (x->rank < 0)
        return RUNG_OK;
    if ((st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)) ||
        (a->in[1]->data && (st = op_ints(a->in[1]->data, "K", 1, &k, &n, err))))
        return st;
    if (a->in[1]->data && (n != 1 || k < 0 || (x->dims[axis] != DIM_UNKNOWN && k > x->dims[axis])))
        return fail(err, RUNG_EMODEL, "K = %lld does not fit axis %d of %lld", (long long)k, axis,
                    (long long)x->dims[axis]);
    for (int i = 0; i < x->rank; i++)
        dims[i] = i == axis ? k : x->dims[i];
    if ((st = op_shape(&a->out[0], x->type, x->rank, dims, err)) || a->n->n_outputs < 2)
        return st;
    return op_shape(&a->out[1], RUNG_I64, x->rank, dims, err);
}

static void copy_element(const tensor *x, size_t from, tensor *y, size_t to)
{
    if (dtype_is_float(x->type)) {
        const double v = tensor_get(x, from);
        store_doubles(y, to, 1, &v);
    } else {
        const int64_t v = tensor_get_int(x, from);
        store_ints(y, to, 1, &v);
    }
}

/* Whether element i goes before element j of a line: the greater (or smaller), then the earlier.
 * As doubles: integers over 2^53 that are that close may change places. */
static bool goes_before(const tensor *x, const line *l, bool largest, size_t i, size_t j)
{
    const double a = tensor_get(x, l->first + i * l->inner);
    const double b = tensor_get(x, l->first + j * l->inner);
    return a != b ? (largest ? a > b : a < b) : i < j;
}

/* The k first of a line, in order, by insertion. */
static void first_of_line(const tensor *x, const line *l, bool largest, size_t k, size_t *order)
{
    size_t have = 0;
    for (size_t i = 0; k > 0 && i < l->n; i++) {
        if (have == k && !goes_before(x, l, largest, i, order[k - 1]))
            continue;
        size_t at = have < k ? have++ : k - 1;
        for (; at > 0 && goes_before(x, l, largest, i, order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static rung_status top_k_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    tensor *y = &a->out[0];
    int64_t *indices = a->n_out > 1 ? a->out[1].data : NULL, dims[RUNG_MAX_RANK], k = 0;
    const bool largest = node_int(a->n, "largest", 1) != 0;
    size_t n = 0;
    int axis = 0;
    rung_status st;
    if ((st = op_axis(node_int(a->n, "axis", -1), x->rank, &axis, err)) ||
        (st = op_ints(&a->in[1], "K", 1, &k, &n, err)))
        return st;
    if (n != 1 || k < 0 || k > x->dims[axis])
        return fail(err, RUNG_EMODEL, "K = %lld does not fit axis %d of %lld", (long long)k, axis,
                    (long long)x->dims[axis]);
    for (int i = 0; i < x->rank; i++)
        dims[i] = i == axis ? k : x->dims[i];
    if ((st = op_check_output(y, x->rank, dims, err)) ||
        (indices && (st = op_check_output(&a->out[1], x->rank, dims, err))))
        return st;
    size_t *order = arena_zero(a->mem, (size_t)k + 1, sizeof *order);
    if (!order)
        return fail_memory(err, "an order", (size_t)k * sizeof *order);
    const size_t lines = count_lines(x, axis);
    for (size_t i = 0; i < lines; i++) {
        const line from = line_at(x, axis, i), to = line_at(y, axis, i);
        first_of_line(x, &from, largest, (size_t)k, order);
        for (size_t j = 0; j < (size_t)k; j++) {
            copy_element(x, from.first + order[j] * from.inner, y, to.first + j * to.inner);
            if (indices)
                indices[to.first + j * to.inner] = (int64_t)order[j];
        }
    }
    return RUNG_OK;
}

/* --- CumSum ----------------------------------------------------------------------------------- */
static rung_status cum_sum_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)) || (st = op_type(a, 0, TYPES_NUMBER, err)) ||
        (st = op_type(a, 1, TYPES_INDEX, err)) || (st = op_min_rank(a, 0, 1, err)))
        return st;
    return op_like(a, 0, 0, a->in[0]->type, err);
}

static void sum_line(const tensor *x, const line *l, bool reverse, bool exclusive, tensor *y)
{
    double sum = 0;
    uint64_t exact = 0;
    for (size_t k = 0; k < l->n; k++) {
        const size_t at = l->first + (reverse ? l->n - 1 - k : k) * l->inner;
        const double before = sum;
        const int64_t exact_before = (int64_t)exact;
        if (dtype_is_float(x->type)) {
            sum += tensor_get(x, at);
            store_doubles(y, at, 1, exclusive ? &before : &sum);
        } else {
            exact += (uint64_t)tensor_get_int(x, at);
            const int64_t v = exclusive ? exact_before : (int64_t)exact;
            store_ints(y, at, 1, &v);
        }
    }
}

static rung_status cum_sum_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    int64_t v = 0;
    size_t n = 0;
    int axis = 0;
    rung_status st;
    if ((st = op_ints(&a->in[1], "axis", 1, &v, &n, err)))
        return st;
    if (n != 1)
        return fail(err, RUNG_EMODEL, "axis is no single number");
    if ((st = op_axis(v, x->rank, &axis, err)))
        return st;
    const size_t lines = count_lines(x, axis);
    for (size_t i = 0; i < lines; i++) {
        const line l = line_at(x, axis, i);
        sum_line(x, &l, node_int(a->n, "reverse", 0) != 0, node_int(a->n, "exclusive", 0) != 0,
                 &a->out[0]);
    }
    return RUNG_OK;
}

const op_def op_cum_sum = {.name = "CumSum", .domain = "", .infer = cum_sum_infer,
                           .eval = cum_sum_eval, .grad = cum_sum_grad};
const op_def op_top_k = {.name = "TopK", .domain = "", .infer = top_k_infer, .eval = top_k_eval};
