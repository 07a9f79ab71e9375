/* The tile instructions in plain C, after the operation sections of Intel's manual (volume 2), for
 * processors without AMX: a kernel's source that is included behind this header runs on them.
 * Where the processor would fault (tiles that are not configured, shapes that do not fit, a bad
 * configuration) tile_faults is raised. One thread. */
#ifndef RUNG_TESTS_KERNELS_TILES_EMULATED_H
#define RUNG_TESTS_KERNELS_TILES_EMULATED_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct emulated_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} emulated_config;

static emulated_config tiles_config; /* palette 0: not configured */
static uint8_t tiles_data[8][16][64];
static long tile_faults;

static inline void emulated_loadconfig(const void *memory)
{
    emulated_config c;
    memcpy(&c, memory, sizeof c);
    bool bad = c.palette > 1 || c.start_row != 0;
    for (int i = 0; i < 14; i++)
        bad |= c.reserved[i] != 0;
    for (int t = 0; t < 16; t++)
        bad |= t < 8 ? c.row_bytes[t] > 64 || c.rows[t] > 16 || !c.row_bytes[t] != !c.rows[t]
                     : c.row_bytes[t] || c.rows[t];
    tile_faults += bad;
    tiles_config = c;
    memset(tiles_data, 0, sizeof tiles_data);
}

static inline void emulated_storeconfig(void *memory)
{
    memcpy(memory, &tiles_config, sizeof tiles_config);
}

static inline void emulated_release(void)
{
    memset(&tiles_config, 0, sizeof tiles_config);
    memset(tiles_data, 0, sizeof tiles_data);
}

static inline bool emulated_there(int tile)
{
    const bool there = tiles_config.palette == 1 && tiles_config.rows[tile] > 0;
    tile_faults += !there;
    return there;
}

/* Bytes and rows behind those configured become zero. */
static inline void emulated_loadd(int tile, const void *base, size_t stride)
{
    if (!emulated_there(tile))
        return;
    memset(tiles_data[tile], 0, sizeof tiles_data[tile]);
    for (int r = 0; r < tiles_config.rows[tile]; r++)
        memcpy(tiles_data[tile][r], (const uint8_t *)base + r * stride,
               tiles_config.row_bytes[tile]);
}

static inline void emulated_stored(int tile, void *base, size_t stride)
{
    if (!emulated_there(tile))
        return;
    for (int r = 0; r < tiles_config.rows[tile]; r++)
        memcpy((uint8_t *)base + r * stride, tiles_data[tile][r], tiles_config.row_bytes[tile]);
}

/* dst [m][n] int32 += a [m][4 k] u8 times b [k][4 n] s8, four products at a time, modulo 2^32. */
static inline void emulated_dpbusd(int dst, int a, int b)
{
    const emulated_config *c = &tiles_config;
    if (!emulated_there(dst) || !emulated_there(a) || !emulated_there(b))
        return;
    if (dst == a || dst == b || a == b || c->rows[dst] != c->rows[a] ||
        c->row_bytes[dst] != c->row_bytes[b] || c->row_bytes[a] / 4 != c->rows[b] ||
        c->row_bytes[a] % 4 || c->row_bytes[dst] % 4) {
        tile_faults++;
        return;
    }
    for (int m = 0; m < c->rows[dst]; m++)
        for (int n = 0; n < c->row_bytes[dst] / 4; n++) {
            uint32_t sum;
            memcpy(&sum, &tiles_data[dst][m][4 * n], 4);
            for (int k = 0; k < c->row_bytes[a]; k++)
                sum += (uint32_t)(tiles_data[a][m][k] *
                                  (int8_t)tiles_data[b][k / 4][4 * n + k % 4]);
            memcpy(&tiles_data[dst][m][4 * n], &sum, 4);
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig emulated_loadconfig
#define _tile_storeconfig emulated_storeconfig
#define _tile_release emulated_release
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbusd emulated_dpbusd

#endif
