#include "base/ranks.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/ranks_wire.h"

struct rung_ranks {
    wire        w;
    rung_status over; /* of the group: RUNG_OK, or what all have been told */
    rung_error  said;
};

/* What a process has come to: in the upper bits; the size of what it brings is below. */
typedef enum call { CALL_AGREE, CALL_SUM, CALL_SUM_FLOATS, CALL_MAX_FLOATS,
               CALL_SHARE, CALL_FIRST } call;
enum { CALL_SHIFT = 56 };

/* Open MPI's word, and what launchers of other MPIs and of clusters set. */
static int started(void)
{
    static const char *const names[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        const long n = text ? strtol(text, NULL, 10) : 0;
        if (n > 0)
            return n < 1 << 20 ? (int)n : 1 << 20;
    }
    return 1;
}

rung_status ranks_create(ranks **out, rung_error *err)
{
    ranks *r = mem_zero(1, sizeof *r);
    *out = NULL;
    if (!r)
        return fail_memory(err, "a group of processes", sizeof *r);
    const rung_status st = wire_open(started(), &r->w, err);
    if (st == RUNG_OK && r->w.count >= 2) {
        *out = r;
        return RUNG_OK;
    }
    ranks_free(r);
    return st;
}

void ranks_free(ranks *r)
{
    if (r)
        wire_close(&r->w);
    mem_free(r);
}

int ranks_index(const ranks *r)
{
    return r ? r->w.index : 0;
}

int ranks_count(const ranks *r)
{
    return r ? r->w.count : 1;
}

void ranks_part(const ranks *r, size_t n, size_t *first, size_t *end)
{
    const size_t at = (size_t)ranks_index(r), of = (size_t)ranks_count(r);
    const size_t each = n / of, more = n % of;
    *first = at * each + (at < more ? at : more);
    *end = *first + each + (at < more);
}

/* --- meeting ---------------------------------------------------------------------------------- */

static rung_status told(const ranks *r, rung_error *err)
{
    return fail(err, r->over, "%s", r->said.message);
}

/* The sentence of process `from` becomes everyone's; others: some have not failed, so that it
 * matters which has. */
static void spread(ranks *r, int from, bool others, rung_status st, const rung_error *err)
{
    r->over = st;
    if (from == r->w.index && err)
        r->said = *err;
    wire_share(from, &r->over, sizeof r->over);
    wire_share(from, &r->said, sizeof r->said);
    if (others)
        fail_at(&r->said, r->over, "rank %d", from);
}

/* All processes are here, in this call with this size, and well. */
static rung_status meet(ranks *r, call what, size_t size, rung_status st, rung_error *err)
{
    const int64_t here = (int64_t)what << CALL_SHIFT | (int64_t)size, count = r->w.count;
    const bool well = st == RUNG_OK;
    int64_t first[] = { well ? count : r->w.index, well ? r->w.index : count, here, -here };
    if (r->over != RUNG_OK)
        return told(r, err);
    wire_min(first, sizeof first / sizeof *first);
    if (first[0] < count)
        spread(r, (int)first[0], first[1] < count, st, err);
    else if (first[2] != -first[3])
        r->over = fail(&r->said, RUNG_EARGUMENT, "the processes have come apart: all are wanted "
                       "with the same options and files, on machines of one kind");
    return r->over == RUNG_OK ? RUNG_OK : told(r, err);
}

rung_status ranks_agree(ranks *r, rung_status st, rung_error *err)
{
    return r ? meet(r, CALL_AGREE, 0, st, err) : st;
}

rung_status ranks_sum(ranks *r, double *data, size_t n, rung_error *err)
{
    const rung_status st = r ? meet(r, CALL_SUM, n, RUNG_OK, err) : RUNG_OK;
    if (r && st == RUNG_OK)
        wire_sum(data, n);
    return st;
}

rung_status ranks_sum_floats(ranks *r, float *data, size_t n, rung_error *err)
{
    const rung_status st = r ? meet(r, CALL_SUM_FLOATS, n, RUNG_OK, err) : RUNG_OK;
    if (r && st == RUNG_OK)
        wire_sum_floats(data, n);
    return st;
}

rung_status ranks_max_floats(ranks *r, float *data, size_t n, rung_error *err)
{
    const rung_status st = r ? meet(r, CALL_MAX_FLOATS, n, RUNG_OK, err) : RUNG_OK;
    if (r && st == RUNG_OK)
        wire_max_floats(data, n);
    return st;
}

rung_status ranks_share(ranks *r, int from, void *data, size_t bytes, rung_error *err)
{
    const rung_status st = r ? meet(r, CALL_SHARE, bytes, RUNG_OK, err) : RUNG_OK;
    if (r && st == RUNG_OK)
        wire_share(from, data, bytes);
    return st;
}

rung_status ranks_first(ranks *r, bool mine, int *index, rung_error *err)
{
    int64_t first = mine ? ranks_index(r) : ranks_count(r);
    const rung_status st = r ? meet(r, CALL_FIRST, 0, RUNG_OK, err) : RUNG_OK;
    if (r && st == RUNG_OK)
        wire_min(&first, 1);
    *index = (int)first;
    return st;
}
