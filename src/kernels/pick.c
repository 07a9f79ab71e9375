/* Which row of a table runs on this machine, and what its registers need. */
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/x86/tiles_amx.h"

size_t kernel_row(const void *table, size_t row_size)
{
    size_t best = 0;
    for (size_t i = 0;; i++) {
        const kernel_head *row = (const void *)((const char *)table + i * row_size);
        if (!row->name)
            return best;
        if (cpu_has(row->needs))
            best = i;
    }
}

const conv_kernel *conv_pick(const conv_shape *s)
{
    const conv_kernel *best = conv_u8s8;
    for (const conv_kernel *k = conv_u8s8; k->name; k++)
        if (cpu_has(k->needs) && k->fits(s))
            best = k;
    return best;
}

bool kernel_tiles_begin(void)
{
#if defined(__x86_64__)
    return cpu_has(CPU_AMX_INT8) && tiles_begin_amx();
#else
    return false;
#endif
}

void kernel_tiles_end(bool begun)
{
#if defined(__x86_64__)
    if (begun)
        tiles_end_amx(begun);
#endif
}
