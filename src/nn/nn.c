#include "nn/nn.h"

#include <string.h>

#include "base/mem.h"
#include "nn/layout.h"
#include "nn/rows.h"

typedef struct nn_row {
    const char *op;
    row_fill    fill;
    bool        add, clamp; /* the epilogue it takes */
} nn_row;

static const nn_row rows[] = {
    {"Abs", unary_row, false, true},
    {"Add", binary_row, false, true},
    {"AveragePool", pool_row, false, true},
    {"Clip", unary_row, false, true},
    {"Conv", conv_row, true, true},
    {"ConvTranspose", conv_transpose_row, true, true},
    {"Div", binary_row, false, true},
    {"Elu", unary_row, false, true},
    {"Erf", unary_row, false, true},
    {"Exp", unary_row, false, true},
    {"Gemm", gemm_row, true, true},
    {"GlobalAveragePool", reduce_row, false, false},
    {"GlobalMaxPool", reduce_row, false, false},
    {"HardSigmoid", unary_row, false, true},
    {"HardSwish", unary_row, false, true},
    {"LeakyRelu", unary_row, false, true},
    {"MatMul", matmul_row, true, true},
    {"Max", binary_row, false, true},
    {"MaxPool", pool_row, false, true},
    {"Min", binary_row, false, true},
    {"Mul", binary_row, false, true},
    {"Neg", unary_row, false, true},
    {"PRelu", binary_row, false, true},
    {"Pow", unary_row, false, true},
    {"ReduceMax", reduce_row, false, false},
    {"ReduceMean", reduce_row, false, false},
    {"ReduceSum", reduce_row, false, false},
    {"Relu", unary_row, false, true},
    {"Resize", resize_row, false, false},
    {"Sigmoid", unary_row, false, true},
    {"Softmax", softmax_row, false, false},
    {"Sqrt", unary_row, false, true},
    {"Sub", binary_row, false, true},
    {"Tanh", unary_row, false, true},
};

static const nn_row *find_row(const node *n)
{
    if (n->domain && n->domain[0] != '\0')
        return NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].op, n->op_type) == 0)
            return &rows[i];
    }
    return NULL;
}

/* What every row may rely on: see rows.h. */
static bool operand_ok(const operand *o, bool may_be_empty)
{
    size_t size;
    const size_t count = o->rank < 0 || o->rank > RUNG_MAX_RANK ? SIZE_MAX : stored_count(o);
    return count != SIZE_MAX && (count > 0 || may_be_empty) && mul_fits(count, 8, &size);
}

rung_status rows_check(const lowering *l, rung_error *err)
{
    if (!has_input(l, 0) || l->n_out < 1)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row without an input and an output");
    if (l->in[0].type != RUNG_F32 || l->out[0].type != RUNG_F32)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for %s", dtype_name(l->in[0].type));
    for (int i = 0; i < l->n_in; i++) {
        if (has_input(l, i) && !operand_ok(&l->in[i], i > 0))
            return fail(err, RUNG_EUNSUPPORTED, "no fast row for an empty or unknown input");
    }
    for (int i = 0; i < l->n_out; i++) {
        if (l->out[i].type != RUNG_UNDEFINED && !operand_ok(&l->out[i], false))
            return fail(err, RUNG_EUNSUPPORTED, "no fast row for an empty output");
    }
    return RUNG_OK;
}

rung_status nn_lower(const lowering *l, step *s, rung_error *err)
{
    const nn_row *row = find_row(l->n);
    if (!row)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for %s", l->n->op_type);
    const rung_status st = rows_check(l, err);
    if (st != RUNG_OK)
        return st;
    *s = (step){0};
    return row->fill(l, s, err);
}

bool nn_takes_add(const node *n)
{
    const nn_row *row = find_row(n);
    return row && row->add;
}

bool nn_takes_clamp(const node *n)
{
    const nn_row *row = find_row(n);
    return row && row->clamp;
}
