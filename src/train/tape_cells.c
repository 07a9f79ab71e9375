/* Cells and steps of a tape, and the two steps that are not a node's: another layout, a sum. */
#include <string.h>

#include "kernels/kernels.h"
#include "nn/vec.h"
#include "ops/lower.h"
#include "train/tape_parts.h"

rung_status tape_out_of_memory(rung_error *err)
{
    return fail_memory(err, "a tape", sizeof(tape_step));
}

rung_status tape_label(const tape *t, const node *n, rung_status st, rung_error *err)
{
    char label[NODE_LABEL_SIZE];
    return st == RUNG_OK ? st : fail_at(err, st, "%s", node_label(t->g, n, label, sizeof label));
}

bool tape_is_param(const tape *t, int v)
{
    return v >= 0 && (size_t)v < t->p->n_values && t->p->at[v] >= 0;
}

size_t tape_count(const tape *t, int v)
{
    return dims_count(t->info[v].rank, t->info[v].dims);
}

bool tape_may_be_last(const tape *t, int v)
{
    return t->info[v].rank >= 3 && !t->constant[v] && !tape_is_param(t, v);
}

rung_status cell_at(tape *t, cell_home home, int v, size_t first, size_t size, void *data, int *out,
                    rung_error *err)
{
    cell *grown = arena_grow(t->mem, t->cells, &t->cap_cells, t->n_cells + 1, sizeof *grown);
    if (!grown)
        return tape_out_of_memory(err);
    t->cells = grown;
    *out = (int)t->n_cells++;
    grown[*out] = (cell){.home = home, .value = v, .first = first, .bytes = size, .data = data,
                         .root = *out, .born = -1, .last = -1};
    return RUNG_OK;
}

rung_status cell_of_bytes(tape *t, size_t size, int *out, rung_error *err)
{
    return cell_at(t, CELL_BUFFER, -1, 0, size, NULL, out, err);
}

rung_status cell_new(tape *t, int v, int *out, rung_error *err)
{
    const value_info *info = &t->info[v];
    const char *name = t->g->values[v].name;
    *out = NO_CELL;
    for (int i = 0; i < info->rank; i++)
        if (info->dims[i] < 0)
            return fail(err, RUNG_EUNSUPPORTED,
                        "dimension %d of '%s' is known only when the model runs", i, name);
    if (info->rank < 0 || info->type == RUNG_UNDEFINED)
        return fail(err, RUNG_EUNSUPPORTED, "the shape of '%s' is known only when the model runs",
                    name);
    const size_t count = tape_count(t, v);
    const size_t size = count > SIZE_MAX / 16 ? 0 : dtype_bytes(info->type, count);
    if (size == 0 || size == SIZE_MAX)
        return fail(err, RUNG_EUNSUPPORTED, "'%s' is empty, too large or no numbers", name);
    return cell_of_bytes(t, size, out, err);
}

tensor tape_tensor(const tape *t, int v)
{
    tensor x = {.type = t->info[v].type, .rank = t->info[v].rank};
    memcpy(x.dims, t->info[v].dims, sizeof x.dims);
    return x;
}

operand tape_operand(const tape *t, int v, bool last)
{
    const value_info *info = &t->info[v];
    operand o = {.name = t->g->values[v].name,
                 .type = info->type,
                 .rank = info->rank,
                 .channels_last = last && tape_may_be_last(t, v),
                 .constant = t->constant[v]};
    memcpy(o.dims, info->dims, sizeof o.dims);
    return o;
}

rung_status tape_add(tape *t, const step *s, const node *n, const int *cells, int n_cells, int over,
                     tape_failure *failure, rung_error *err)
{
    tape_step *grown = arena_grow(t->mem, t->steps, &t->cap_steps, t->n_steps + 1, sizeof *grown);
    if (!grown)
        return tape_out_of_memory(err);
    t->steps = grown;
    tape_step made = {.s = *s, .n = n, .n_cells = n_cells, .over = over, .failure = failure};
    made.cells = arena_copy(t->mem, cells, (size_t)n_cells * sizeof *cells);
    made.bufs = arena_zero(t->mem, (size_t)n_cells + 1, sizeof *made.bufs);
    if (!made.cells || !made.bufs)
        return tape_out_of_memory(err);
    grown[t->n_steps++] = made;
    return RUNG_OK;
}

rung_status tape_convert(tape *t, int v, int from, bool from_last, int *out, rung_error *err)
{
    operand x = tape_operand(t, v, from_last), y = tape_operand(t, v, !from_last);
    const lowering l = {.in = &x, .n_in = 1, .out = &y, .n_out = 1,
                        .n_threads = team_size(t->threads), .mem = t->mem};
    step s = {0};
    rung_status st = lower_convert(&l, &s, err);
    if (st == RUNG_OK && s.view) { /* one channel, or one pixel: the same bytes */
        *out = from;
        return RUNG_OK;
    }
    if (st == RUNG_OK)
        st = cell_new(t, v, out, err);
    s.in_place = false;
    const int cells[2] = {from, *out};
    return st == RUNG_OK ? tape_add(t, &s, NULL, cells, 2, 1, NULL, err) : st;
}

static void run_sum(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const size_t *n = s->params;
    size_t first, last;
    kernel_share(*n, 16, thread, n_threads, &first, &last);
    const float *x = bufs[0], *y = bufs[1];
    float *sum = bufs[2];
    vec_pick()->binary[VEC_ADD](x + first, 1, y + first, 1, last - first, sum + first);
}

rung_status tape_sum(tape *t, int x, int y, int *out, rung_error *err)
{
    const size_t n = t->cells[x].bytes / sizeof(float);
    const step s = {.kernel = "sum_f32 vec", .run = run_sum, .in_place = true,
                    .params = arena_copy(t->mem, &n, sizeof n)};
    if (!s.params)
        return tape_out_of_memory(err);
    const rung_status st = cell_of_bytes(t, n * sizeof(float), out, err);
    const int cells[3] = {x, y, *out};
    return st == RUNG_OK ? tape_add(t, &s, NULL, cells, 3, 2, NULL, err) : st;
}
