#include "kernels/x86/tiles_amx.h"

#include <immintrin.h>
#include <stdint.h>

/* What LDTILECFG reads: Intel's manual, volume 1, chapter 18. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "the processor's layout");

static const tile_config all_whole = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

bool tiles_begin_amx(void)
{
    tile_config now;
    _tile_storeconfig(&now); /* zeros where nothing is configured */
    __asm__ volatile("" : "+m"(now)); /* gcc 12 thinks that 8 bytes are written */
    if (now.palette != 0)
        return false;
    _tile_loadconfig(&all_whole);
    return true;
}

void tiles_end_amx(bool begun)
{
    if (begun)
        _tile_release();
}
