#include "base/ranks.h"

rung_status rung_ranks_create(rung_ranks **out, rung_error *err)
{
    return out ? ranks_create(out, err)
               : fail(err, RUNG_EARGUMENT, "rung_ranks_create: out must not be NULL");
}

int rung_ranks_index(const rung_ranks *r)
{
    return ranks_index(r);
}

int rung_ranks_count(const rung_ranks *r)
{
    return ranks_count(r);
}

rung_status rung_ranks_agree(rung_ranks *r, rung_status status, rung_error *err)
{
    return ranks_agree(r, status, err);
}

void rung_ranks_free(rung_ranks *r)
{
    ranks_free(r);
}
