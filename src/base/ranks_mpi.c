#include "base/ranks_wire.h"

#include <mpi.h>

enum { PIECE = 1 << 28 }; /* MPI counts in int */

static bool is_open(void)
{
    int begun = 0, ended = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    return begun && !ended;
}

/* MPI is started only where a launcher says that there are others: it takes a while. */
rung_status wire_open(int started, wire *w, rung_error *err)
{
    int level;
    *w = (wire){ .ours = !is_open() };
    if (w->ours && started < 2)
        return RUNG_OK;
    if (w->ours && (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
                    level < MPI_THREAD_FUNNELED))
        return fail(err, RUNG_EUNSUPPORTED, "MPI does not start for a process with threads: run "
                    "without mpirun");
    MPI_Comm_rank(MPI_COMM_WORLD, &w->index);
    MPI_Comm_size(MPI_COMM_WORLD, &w->count);
    if (w->count >= 2 || started < 2)
        return RUNG_OK;
    return fail(err, RUNG_EUNSUPPORTED, "the launcher started %d processes, but each finds itself "
                "alone: it is the mpirun of another MPI than the one that rung was built with",
                started);
}

void wire_close(const wire *w)
{
    if (w->ours && is_open())
        MPI_Finalize();
}

static int piece(size_t rest)
{
    return rest < PIECE ? (int)rest : PIECE;
}

static void reduce(void *data, size_t n, size_t size, MPI_Datatype type, MPI_Op op)
{
    for (size_t at = 0; at < n; at += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, (char *)data + at * size, piece(n - at), type, op,
                      MPI_COMM_WORLD);
}

void wire_min(int64_t *data, size_t n)
{
    reduce(data, n, sizeof *data, MPI_INT64_T, MPI_MIN);
}

void wire_sum(double *data, size_t n)
{
    reduce(data, n, sizeof *data, MPI_DOUBLE, MPI_SUM);
}

void wire_sum_floats(float *data, size_t n)
{
    reduce(data, n, sizeof *data, MPI_FLOAT, MPI_SUM);
}

void wire_max_floats(float *data, size_t n)
{
    reduce(data, n, sizeof *data, MPI_FLOAT, MPI_MAX);
}

void wire_share(int from, void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PIECE)
        MPI_Bcast((char *)data + at, piece(bytes - at), MPI_BYTE, from, MPI_COMM_WORLD);
}
