#include "nn/backward.h"

#include <string.h>

#include "nn/backward_rows.h"
#include "nn/nn.h"
#include "nn/rows.h"

typedef struct training_row {
    const char   *op;
    row_fill      forward; /* NULL: nn_lower's */
    backward_fill backward;
} training_row;

static const training_row rows[] = {
    {"Abs", NULL, unary_backward},
    {"Add", NULL, binary_backward},
    {"AveragePool", NULL, pool_backward},
    {"BatchNormalization", batchnorm_training, batchnorm_backward},
    {"Clip", NULL, unary_backward},
    {"Conv", conv_training, conv_backward},
    {"Div", NULL, binary_backward},
    {"Elu", NULL, unary_backward},
    {"Erf", NULL, unary_backward},
    {"Exp", NULL, unary_backward},
    {"Gelu", NULL, unary_backward},
    {"Gemm", gemm_training, gemm_backward},
    {"GlobalAveragePool", NULL, reduce_backward},
    {"HardSigmoid", NULL, unary_backward},
    {"HardSwish", NULL, unary_backward},
    {"LeakyRelu", NULL, unary_backward},
    {"MatMul", NULL, matmul_backward},
    {"MaxPool", NULL, pool_backward},
    {"Mul", NULL, binary_backward},
    {"Pow", NULL, unary_backward},
    {"ReduceMean", NULL, reduce_backward},
    {"ReduceSum", NULL, reduce_backward},
    {"Relu", NULL, unary_backward},
    {"Sigmoid", NULL, unary_backward},
    {"Softmax", NULL, softmax_backward},
    {"Sqrt", NULL, unary_backward},
    {"Sub", NULL, binary_backward},
    {"Tanh", NULL, unary_backward},
};

static const training_row *find_row(const node *n)
{
    if (n->domain && n->domain[0] != '\0')
        return NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].op, n->op_type) == 0)
            return &rows[i];
    }
    return NULL;
}

rung_status nn_lower_training(const lowering *l, step *s, rung_error *err)
{
    const training_row *row = find_row(l->n);
    if (!row || !row->forward)
        return nn_lower(l, s, err);
    const rung_status st = rows_check(l, err);
    if (st != RUNG_OK)
        return st;
    *s = (step){0};
    return row->forward(l, s, err);
}

/* Gradients are made of float32 inputs only. */
static bool wanted_fits(const lowering *l, unsigned wanted)
{
    for (int i = 0; i < 32; i++) {
        if (wants(wanted, i) && (!has_input(l, i) || l->in[i].type != RUNG_F32))
            return false;
    }
    return wanted != 0;
}

rung_status nn_lower_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    const training_row *row = find_row(l->n);
    if (!row)
        return fail(err, RUNG_EUNSUPPORTED, "no fast row backward for %s", l->n->op_type);
    const rung_status st = rows_check(l, err);
    if (st != RUNG_OK)
        return st;
    if (!wanted_fits(l, wanted))
        return fail(err, RUNG_EUNSUPPORTED, "gradients of operands that are no floats");
    *s = (step){0};
    return row->backward(l, wanted, s, err);
}
