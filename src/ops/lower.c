/* What the lowerings share. */
#include "ops/lower.h"

bool operand_absent(const operand *o)
{
    return o->type == RUNG_UNDEFINED;
}

size_t stored_count(const operand *o)
{
    return dims_count(o->rank, o->dims);
}

void stored_strides(const operand *o, int64_t strides[RUNG_MAX_RANK])
{
    int64_t stride = 1;
    const bool last = o->channels_last && o->rank >= 3;
    if (last) {
        strides[1] = 1;
        stride = o->dims[1];
    }
    for (int i = o->rank - 1; i >= 0; i--) {
        if (last && i == 1)
            continue;
        strides[i] = stride;
        stride *= o->dims[i];
    }
}

bool operand_same_params(const operand *a, const operand *b)
{
    return a->type == b->type && a->scale == b->scale && a->zero == b->zero;
}
