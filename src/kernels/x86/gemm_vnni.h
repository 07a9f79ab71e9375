/* The plan of the convolutions with VPDPBUSD: how a shape is cut into an indirect GEMM, and the
 * layout of its packed weights. Plain C, for each width of registers: a vector is 16 columns, and
 * block_vectors of them stay in registers.
 *
 * Rows are output pixels, columns output channels, four input channels a step. The input of a row
 * lies at one address, the row's base, plus an offset for each of the tile's taps, the same for all
 * rows. What a tap is depends on the shape:
 *   lines   one line of the kernel, its pixels side by side as they lie in the image;
 *   pixels  one tap of the kernel, all its channels: for dilated and grouped kernels;
 *   whole   the whole kernel: every row is copied. For channels that are no multiple of 4 in
 *           those, and for images too wide to be copied by lines.
 * Where lines or pixels would leave the image (padding, or lines rounded up to 4 bytes) the rows
 * read a strip: a copy of some lines of the image with the padding around them.
 * Neighbouring groups with few outputs are merged into one with zeros off the diagonal.
 *
 * Packed, for each group: bias [n padded to 16] int32 with the zero point folded in; then, for
 * each block of columns, w [tap][k / 4][columns][4], zero where there is no weight. */
#ifndef RUNG_KERNELS_X86_GEMM_VNNI_H
#define RUNG_KERNELS_X86_GEMM_VNNI_H

#include "kernels/kernels.h"

typedef enum tap_kind { PIXELS, LINES, WHOLE } tap_kind;

/* The GEMM of one (merged) group. */
typedef struct gemm_plan {
    int groups, merged; /* after merging; of the operator's groups in one */
    int in_c, out_c;    /* of a group */
    tap_kind kind;
    bool strip;             /* rows read a copy of the image's lines */
    int taps, depth, quads; /* taps of the tile; real channels, and steps of four, of each */
    int vectors, blocks, block_vectors; /* of 16 columns; blocks of up to block_vectors */
    size_t row_bytes;       /* of a copied row (WHOLE) */
    size_t group_bytes;
    int strip_w, strip_lines;  /* pixels of a strip's line; lines for chunk_lines */
    size_t chunk, chunk_lines; /* rows at once, output lines at once (strip) */
    size_t copy_bytes;         /* scratch for copied rows or the strip */
} gemm_plan;

gemm_plan gemm_vnni_plan(const conv_shape *s, int block_vectors);
size_t gemm_vnni_packed_size(const conv_shape *s, int block_vectors);
void gemm_vnni_pack(const conv_shape *s, int block_vectors, const int8_t *w, const int32_t *bias,
                    int x_zero, void *packed);

/* The first vector of a block; full blocks, and what is left. */
static inline int gemm_block_start(const gemm_plan *p, int block)
{
    const int first = p->block_vectors * block;
    return first < p->vectors ? first : p->vectors;
}

#endif
