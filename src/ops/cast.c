/* Cast and CastLike. */
#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/move.h"

#define TYPES_PACKED (TYPE(RUNG_U4) | TYPE(RUNG_I4) | TYPE(RUNG_U2) | TYPE(RUNG_I2))
#define CASTABLE (TYPES_NUMBER | TYPE(RUNG_BOOL) | TYPES_PACKED)

static rung_status cast_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)))
        return st;
    const int64_t to = node_int(a->n, "to", RUNG_UNDEFINED);
    if (to <= RUNG_UNDEFINED || to > RUNG_I2)
        return fail(err, RUNG_EMODEL, "to = %lld is no element type", (long long)to);
    return op_like(a, 0, 0, (dtype)to, err);
}

static rung_status cast_like_infer(const infer_args *a, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 2, 2, 1, err)))
        return st;
    return op_like(a, 0, 0, a->in[1]->type, err);
}

/* Floats to integers go toward zero. Out of range, integers and what becomes 4 or 2 bits keep their
 * low bits; other floats, where ONNX leaves it open, saturate. */
static rung_status cast_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    tensor *y = &a->out[0];
    const size_t n = tensor_count(y);
    const bool keep_bits = (TYPES_PACKED & TYPE(y->type)) != 0;
    if (x->type == y->type)
        return copy_tensor(x, y, err);
    if (!(CASTABLE & TYPE(x->type)) || !(CASTABLE & TYPE(y->type)))
        return fail(err, RUNG_EUNSUPPORTED, "cannot cast %s to %s", dtype_name(x->type),
                    dtype_name(y->type));
    for (size_t i = 0; i < n; i++) {
        if (!keep_bits && (dtype_is_float(x->type) || dtype_is_float(y->type))) {
            const double v = tensor_get(x, i);
            store_doubles(y, i, 1, &v);
        } else {
            int64_t v;
            load_ints(x, i, 1, &v);
            store_ints(y, i, 1, &v);
        }
    }
    return RUNG_OK;
}

const op_def op_cast = {.name = "Cast", .domain = "", .infer = cast_infer, .eval = cast_eval,
                        .grad = copy_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_cast_like = {.name = "CastLike", .domain = "", .infer = cast_like_infer,
                             .eval = cast_eval, .grad = copy_grad, .layout = LAYOUT_FOLLOWS};
