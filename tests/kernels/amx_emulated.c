/* The AMX kernels' own source on emulated tiles: every machine with AVX512 can test it. */
#include "tiles_emulated.h"

#define tiles_begin_amx tiles_begin_emulated
#define tiles_end_amx tiles_end_emulated
#define gemm_fits_amx gemm_fits_emulated
#define gemm_packed_size_amx gemm_packed_size_emulated
#define gemm_pack_amx gemm_pack_emulated
#define gemm_scratch_size_amx gemm_scratch_size_emulated
#define gemm_run_amx gemm_run_emulated
#define gemm_sums_amx gemm_sums_emulated

#include "kernels/x86/gemm_amx.c"
#include "kernels/x86/tiles_amx.c"

#include "base/cpu.h"
#include "check.h"

static bool fits_all_but_groups(const conv_shape *s)
{
    return s->groups == 1;
}

/* The row of the table, and one that takes what the table gives to other rows. */
const conv_kernel conv_emulated[] = {
    {"amx", CPU_AVX512, gemm_fits_amx, gemm_packed_size_amx, gemm_pack_amx,
     gemm_scratch_size_amx, gemm_run_amx, gemm_sums_amx},
    {"amx, any shape", CPU_AVX512, fits_all_but_groups, gemm_packed_size_amx, gemm_pack_amx,
     gemm_scratch_size_amx, gemm_run_amx, gemm_sums_amx},
    {0},
};

/* Behind the kernels: nothing faulted and nothing stays configured; and a kernel within a region
 * leaves the tiles to it. */
void check_emulated_tiles(void)
{
    expect(tile_faults == 0, "%ld tile instructions would fault", tile_faults);
    expect(tiles_config.palette == 0, "tiles are configured behind the kernels");
    const bool outer = tiles_begin_amx(), inner = tiles_begin_amx();
    expect(outer && !inner, "tiles begin %d, then %d", outer, inner);
    tiles_end_amx(inner);
    expect(tiles_config.palette == 1, "the inner end releases the tiles");
    tiles_end_amx(outer);
    expect(tiles_config.palette == 0, "the outer end does not release the tiles");
}
