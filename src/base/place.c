#include "base/place.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"

#define ALIGN 64

static size_t aligned(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static int larger_first(const void *a, const void *b)
{
    const place_piece *x = *(place_piece *const *)a, *y = *(place_piece *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : 1;
}

static int lower_first(const void *a, const void *b)
{
    const place_piece *x = *(place_piece *const *)a, *y = *(place_piece *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x < y ? -1 : 1;
}

static bool live_together(const place_piece *a, const place_piece *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The smallest gap between `near` (sorted by offset) that holds p; behind all of them otherwise. */
static size_t best_gap(place_piece *const *near, size_t n, const place_piece *p)
{
    size_t best = SIZE_MAX, best_size = SIZE_MAX, end = 0;
    for (size_t i = 0; i < n; i++) {
        if (near[i]->offset > end) {
            const size_t gap = near[i]->offset - end;
            if (gap >= aligned(p->bytes) && gap < best_size) {
                best = end;
                best_size = gap;
            }
        }
        const size_t next = near[i]->offset + aligned(near[i]->bytes);
        end = next > end ? next : end;
    }
    return best == SIZE_MAX ? end : best;
}

/* Sums that cannot overflow size_t: no piece is larger than what the machine holds. */
static rung_status check_size(const place_piece *pieces, size_t n, rung_error *err)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t memory = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX / 4;
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].bytes > memory)
            return fail(err, RUNG_EMEMORY,
                        "a tensor of the model takes %zu MiB, the machine has %zu",
                        pieces[i].bytes >> 20, memory >> 20);
        const size_t more = aligned(pieces[i].bytes);
        sum = sum > SIZE_MAX - more ? SIZE_MAX : sum + more;
    }
    return sum == SIZE_MAX ? fail(err, RUNG_EMEMORY, "the model's tensors are too large") : RUNG_OK;
}

rung_status place_pieces(place_piece *pieces, size_t n, size_t *total, rung_error *err)
{
    *total = 0;
    rung_status st = check_size(pieces, n, err);
    if (st != RUNG_OK)
        return st;
    place_piece **order = mem_zero(2 * n + 1, sizeof *order), **near = order + n;
    if (!order)
        return fail_memory(err, "the plan of buffers", 2 * n * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = &pieces[i];
    qsort(order, n, sizeof *order, larger_first);
    for (size_t i = 0; i < n; i++) {
        size_t n_near = 0;
        for (size_t k = 0; k < i; k++)
            if (live_together(order[i], order[k]))
                near[n_near++] = order[k];
        qsort(near, n_near, sizeof *near, lower_first);
        order[i]->offset = best_gap(near, n_near, order[i]);
        const size_t end = order[i]->offset + aligned(order[i]->bytes);
        *total = end > *total ? end : *total;
    }
    mem_free(order);
    return RUNG_OK;
}
