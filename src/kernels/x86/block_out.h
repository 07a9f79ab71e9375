/* Where the sums of some columns of a GEMM go. */
#ifndef RUNG_KERNELS_X86_BLOCK_OUT_H
#define RUNG_KERNELS_X86_BLOCK_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "kernels/x86/words.h"

/* What the columns of a block need behind the dot products. */
typedef struct block_out {
    const int32_t *bias;
    const float *mult;
    uint8_t *y;      /* first row, first column: bytes, or int32 sums */
    size_t y_stride; /* in bytes */
    int last;        /* columns of the last register that exist: 1 to 16 */
    uint8_t zero, lo, hi;
    bool sums;            /* y is int32 sums: no requantization */
    bool bounded;         /* no product leaves int32: the multipliers are below 1 */
    const int32_t *order; /* what the instruction set needs to order bytes */
} block_out;

/* Its requantization, for the columns from `column` on. */
static inline void block_out_requant(block_out *b, const requant *q, size_t column)
{
    b->mult = q->mult + column;
    b->zero = (uint8_t)q->zero;
    b->lo = (uint8_t)q->lo;
    b->hi = (uint8_t)q->hi;
}

/* Whether block_out.bounded holds for these multipliers. */
static inline bool below_one(const float *mult, int n)
{
    bool all = true;
    for (int i = 0; i < n; i++)
        all &= mult[i] < 1;
    return all;
}

#endif
