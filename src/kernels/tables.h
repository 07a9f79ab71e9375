/* The dispatch tables as a list, for those who show them. */
#ifndef RUNG_KERNELS_TABLES_H
#define RUNG_KERNELS_TABLES_H

#include "kernels/kernels.h"

typedef struct kernel_table {
    const char *name; /* "add_u8" */
    const void *rows;
    size_t      row_size;
    bool        by_shape; /* conv_u8s8: conv_pick chooses, the others KERNEL_PICK */
} kernel_table;
extern const kernel_table kernel_tables[]; /* ends with name = NULL */

/* Row i, false behind the last one. */
bool kernel_table_row(const kernel_table *t, size_t i, const char **name, unsigned *needs);

/* Layers that networks have, one of each kind: which row of conv_u8s8 is chosen depends on the
 * shape. Ends with name = NULL. */
typedef struct kernel_layer {
    const char *name;
    conv_shape  shape;
} kernel_layer;
extern const kernel_layer kernel_layers[];

#endif
