/* A build without MPI: copies that each do the whole work are refused. */
#include "base/ranks_wire.h"

rung_status wire_open(int started, wire *w, rung_error *err)
{
    *w = (wire){ 0 };
    if (started < 2)
        return RUNG_OK;
    return fail(err, RUNG_EUNSUPPORTED, "mpirun started %d processes, but this rung was built "
                "without MPI and each would do the whole work: build with -Dmpi=enabled, or run "
                "without mpirun", started);
}

void wire_close(const wire *w)
{
    (void)w;
}

void wire_min(int64_t *data, size_t n)
{
    (void)data, (void)n;
}

void wire_sum(double *data, size_t n)
{
    (void)data, (void)n;
}

void wire_sum_floats(float *data, size_t n)
{
    (void)data, (void)n;
}

void wire_max_floats(float *data, size_t n)
{
    (void)data, (void)n;
}

void wire_share(int from, void *data, size_t bytes)
{
    (void)from, (void)data, (void)bytes;
}
