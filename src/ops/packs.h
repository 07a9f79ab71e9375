/* What kernels make of constants (packed weights): made once for all plans of one graph that are
 * given the same store, by whichever needs it first, and freed with the last plan that uses it.
 * Plans may be made and freed by several threads at once. */
#ifndef RUNG_OPS_PACKS_H
#define RUNG_OPS_PACKS_H

#include "ops/step.h"

typedef struct pack_store pack_store;

rung_status pack_store_create(pack_store **out, rung_error *err);
/* The store goes when the last plan that uses something of it is freed. NULL is fine. */
void pack_store_free(pack_store *s);
/* Bytes of all that is in it. */
size_t pack_store_bytes(pack_store *s);

/* All that the packed bytes depend on, besides the graph. */
typedef struct pack_key {
    int         source; /* of the constant: operand.source */
    const char *kind;   /* what is made of it */
    const void *params; /* of `kind`: bytes that are compared, without padding */
    size_t      n_params;
    const void *more; /* the same; may be empty */
    size_t      n_more;
} pack_key;

/* Makes the packed form in mem. */
typedef rung_status (*pack_make)(const void *ctx, arena *mem, const void **packed, rung_error *err);

/* What make(ctx) makes, or has made for another plan; it lives as long as l->mem. Made in l->mem
 * itself where nothing is shared: without a store, or of a constant of this plan alone. A failure
 * leaves the store as it was. */
rung_status pack_take(const lowering *l, const pack_key *key, pack_make make, const void *ctx,
                      const void **packed, rung_error *err);

#endif
