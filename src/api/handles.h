/* What is behind the opaque handles of rung.h. */
#ifndef RUNG_API_HANDLES_H
#define RUNG_API_HANDLES_H

#include "data/data.h"
#include "graph/graph.h"
#include "ops/packs.h"

struct rung_model {
    graph *g;
    pack_store *packs; /* of its sessions */
};

/* A model of g, which becomes its own, also after a failure. */
rung_status model_wrap(graph *g, rung_model **out, rung_error *err);

struct rung_dataset {
    dataset *d;
};

#endif
