/* The sums of a tile to bytes with AVX512, or stored as they are: mr rows of nv registers of 16
 * columns, both constants of the compiler. */
#ifndef RUNG_KERNELS_X86_REQUANT_AVX512_H
#define RUNG_KERNELS_X86_REQUANT_AVX512_H

#include <immintrin.h>

#include "kernels/x86/block_out.h"

/* Packing works in 128-bit lanes: dword 4 l + j is lane l of register j. */
static const int32_t lane_order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

/* Its constants in registers: loaded once a tile, as for the compiler a store may change them. */
typedef struct block_consts {
    __m512 mult[4];
    __m512i zero, lo, hi, order;
} block_consts;

INLINE block_consts load_consts(const block_out *b, int nv)
{
    const __mmask16 last = (__mmask16)(0xffffu >> (16 - b->last));
    block_consts k;
    UNROLL
    for (int v = 0; v < 4; v++)
        k.mult[v] = v < nv ? _mm512_maskz_loadu_ps(v == nv - 1 ? last : 0xffff, b->mult + 16 * v)
                           : _mm512_setzero_ps();
    k.zero = _mm512_set1_epi16(b->zero);
    k.lo = _mm512_set1_epi8((char)b->lo);
    k.hi = _mm512_set1_epi8((char)b->hi);
    k.order = _mm512_loadu_si512(b->order);
    return k;
}

/* A product below int32 becomes INT32_MIN in the conversion, which saturates as it should; above,
 * it must not get that far. */
INLINE __m512i rounded(__m512i sum, __m512 mult, bool bounded)
{
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), mult);
    if (!bounded)
        v = _mm512_min_ps(v, _mm512_set1_ps(65536));
    return _mm512_cvtps_epi32(v);
}

/* Four registers of 16 rounded sums to bytes, register after register. */
INLINE __m512i to_bytes(const block_consts *k, const __m512i i[4])
{
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(i[0], i[1]), k->zero);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(i[2], i[3]), k->zero);
    const __m512i bytes = _mm512_packus_epi16(low, high);
    return _mm512_permutexvar_epi32(k->order,
                                    _mm512_min_epu8(_mm512_max_epu8(bytes, k->lo), k->hi));
}

/* The bytes of 4 / nv rows of nv registers: one row of three or four, two of two, four of one. */
INLINE void store_rows(const block_out *b, int nv, __m512i bytes, uint8_t *y)
{
    if (b->y_stride == 16 * (size_t)nv || (nv == 4 && b->last == 16)) {
        const __mmask64 all = nv == 3 ? ~UINT64_C(0) >> 16 : ~UINT64_C(0);
        nv == 3 ? _mm512_mask_storeu_epi8(y, all, bytes) : _mm512_storeu_si512(y, bytes);
    } else if (nv >= 3) {
        _mm512_mask_storeu_epi8(y, ~UINT64_C(0) >> (64 - 16 * (nv - 1) - b->last), bytes);
    } else if (nv == 2) {
        const __mmask32 there = ~UINT32_C(0) >> (16 - b->last);
        _mm256_mask_storeu_epi8(y, there, _mm512_castsi512_si256(bytes));
        _mm256_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti64x4_epi64(bytes, 1));
    } else {
        const __mmask16 there = (__mmask16)(0xffffu >> (16 - b->last));
        _mm_mask_storeu_epi8(y, there, _mm512_castsi512_si128(bytes));
        _mm_mask_storeu_epi8(y + b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 1));
        _mm_mask_storeu_epi8(y + 2 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 2));
        _mm_mask_storeu_epi8(y + 3 * b->y_stride, there, _mm512_extracti32x4_epi32(bytes, 3));
    }
}

/* One row, where there are not enough for store_rows. */
INLINE void store_row(const block_out *b, int nv, __m512i bytes, uint8_t *y)
{
    _mm512_mask_storeu_epi8(y, ~UINT64_C(0) >> (64 - 16 * (nv - 1) - b->last), bytes);
}

INLINE void store_tile_as(const block_out *b, int mr, int nv, __m512i acc[8][4], bool bounded)
{
    const block_consts k = load_consts(b, nv);
    const int fit = nv == 1 ? 4 : nv == 2 ? 2 : 1, together = mr % fit ? 1 : fit;
    uint8_t *y = b->y;
    UNROLL
    for (int r = 0; r < mr; r += together, y += together * b->y_stride) {
        __m512i i[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            i[j] = j < together * nv ? rounded(acc[r + j / nv][j % nv], k.mult[j % nv], bounded)
                                     : i[0];
        if (together == fit)
            store_rows(b, nv, to_bytes(&k, i), y);
        else
            store_row(b, nv, to_bytes(&k, i), y);
    }
}

INLINE void store_sums(const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    const __mmask16 last = (__mmask16)(0xffffu >> (16 - b->last));
    uint8_t *y = b->y;
    UNROLL
    for (int r = 0; r < mr; r++, y += b->y_stride)
        UNROLL
    for (int v = 0; v < nv; v++)
        _mm512_mask_storeu_epi32(y + 64 * v, v == nv - 1 ? last : 0xffff, acc[r][v]);
}

INLINE void store_tile(bool sums, const block_out *b, int mr, int nv, __m512i acc[8][4])
{
    if (sums) {
        store_sums(b, mr, nv, acc);
        return;
    }
    __asm__ volatile("" : "+r"(b)); /* keeps the constants out of the dot products' registers */
    if (b->bounded)
        store_tile_as(b, mr, nv, acc, true);
    else
        store_tile_as(b, mr, nv, acc, false);
}

#endif
