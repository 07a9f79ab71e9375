/* Steps that are functions of single codes: what engine composes. */
#include "ops/lower.h"

/* One loop over all elements, with operands of 8 bits; a constant is one number. */
static bool is_pointwise(const binary_step *b)
{
    return !b->wide_kernel && b->rank == 0 && b->n_rows == 1 && !b->a_const &&
           (b->b_step ? !b->b_const : b->b_const != NULL);
}

int step_pointwise(const step *s, int places[2])
{
    const table_step *t = step_table(s);
    const binary_step *b = step_binary(s);
    if (t) {
        places[0] = t->in;
        return 1;
    }
    if (!b || !is_pointwise(b))
        return 0;
    places[0] = b->swapped;
    places[1] = !b->swapped;
    return b->b_const ? 1 : 2;
}

void step_tabulate(const step *s, const uint8_t *const operands[2], uint8_t table[256])
{
    const table_step *t = step_table(s);
    const binary_step *b = step_binary(s);
    if (t)
        for (int i = 0; i < 256; i++)
            table[i] = t->table[operands[0][i]];
    else
        b->kernel->run(operands[0], b->b_const ? b->b_const : operands[1], b->b_step, 256, &b->q.q,
                       table);
}
