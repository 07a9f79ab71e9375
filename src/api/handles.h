/* What is behind the opaque handles of rung.h. */
#ifndef RUNG_API_HANDLES_H
#define RUNG_API_HANDLES_H

#include "data/data.h"
#include "graph/graph.h"

struct rung_model {
    graph *g;
};

struct rung_dataset {
    dataset *d;
};

#endif
