/* The tile registers of a thread. They are one for all kernels: each of the eight 16 rows of 64
 * bytes. */
#ifndef RUNG_KERNELS_X86_TILES_AMX_H
#define RUNG_KERNELS_X86_TILES_AMX_H

#include <stdbool.h>

/* Configures them, unless they are configured: true, then tiles_end_amx is due. */
bool tiles_begin_amx(void);
/* Releases them if `begun`, what tiles_begin_amx returned. */
void tiles_end_amx(bool begun);

#endif
