/* Plan and packing of the convolutions with VPDPBUSD: see the header. */
#include "kernels/x86/gemm_vnni.h"

#include <string.h>

#include "kernels/kernels.h"

enum {
    CHUNK_ROWS = 96,          /* rows of which all columns are made before the next: from 6 and 8 */
    COPY_BYTES = 32 * 1024,   /* of copied rows or lines at once: stays in the first-level cache */
    STRIP_BYTES = 512 * 1024, /* the most that the lines of one output line may take */
};

/* How many groups fill 16 columns. */
static int groups_to_merge(const conv_shape *s)
{
    const int out_c = s->out_c / s->groups;
    int m = out_c < 16 ? 16 / out_c : 1;
    while (s->groups % m != 0)
        m--;
    return m;
}

/* Input pixels between the first tap of the first and the last tap of the last of n outputs. */
static int64_t span(int64_t n, int stride, int kernel, int dilation)
{
    return (n - 1) * stride + (int64_t)(kernel - 1) * dilation + 1;
}

static bool all_inside(const conv_shape *s)
{
    return s->pad_top == 0 && s->pad_left == 0 &&
           span(s->out_h, s->stride_h, s->kernel_h, s->dilation_h) <= s->in_h &&
           span(s->out_w, s->stride_w, s->kernel_w, s->dilation_w) <= s->in_w;
}

static void choose_taps(const conv_shape *s, gemm_plan *p)
{
    const int64_t strip_w = span(s->out_w, s->stride_w, s->kernel_w, s->dilation_w);
    const int64_t lines = span(1, s->stride_h, s->kernel_h, s->dilation_h);
    const bool as_lines = p->groups == 1 && s->dilation_w == 1;
    const int line_depth = p->in_c * s->kernel_w;
    p->kind = as_lines ? LINES : p->in_c % 4 ? WHOLE : PIXELS;
    p->strip = p->kind != WHOLE && !(all_inside(s) && (as_lines ? line_depth : p->in_c) % 4 == 0);
    if (p->strip && strip_w > STRIP_BYTES / lines / s->in_c) {
        p->kind = WHOLE;
        p->strip = false;
    }
    p->strip_w = p->strip ? (int)strip_w : 0;
    p->taps = p->kind == LINES ? s->kernel_h : p->kind == WHOLE ? 1 : s->kernel_h * s->kernel_w;
}

/* As many rows at once as the caches hold. */
static void choose_chunk(const conv_shape *s, gemm_plan *p)
{
    p->chunk = CHUNK_ROWS;
    if (p->kind == WHOLE) {
        if (p->row_bytes * p->chunk > COPY_BYTES)
            p->chunk = COPY_BYTES / p->row_bytes / 24 * 24;
        p->chunk = p->chunk ? p->chunk : 24;
        p->copy_bytes = p->chunk * p->row_bytes;
    }
    if (!p->strip)
        return;
    const size_t line_bytes = (size_t)p->strip_w * (size_t)s->in_c;
    const int64_t room =
        (int64_t)(COPY_BYTES / line_bytes) - span(1, 1, s->kernel_h, s->dilation_h);
    const int64_t lines = room < 0 ? 1 : room / s->stride_h + 1;
    p->chunk_lines = (size_t)(lines < s->out_h ? lines : s->out_h);
    p->strip_lines = (int)span((int64_t)p->chunk_lines, s->stride_h, s->kernel_h, s->dilation_h);
    p->copy_bytes = (size_t)p->strip_lines * line_bytes + 4;
}

gemm_plan gemm_vnni_plan(const conv_shape *s, int block_vectors)
{
    gemm_plan p = {.merged = groups_to_merge(s), .block_vectors = block_vectors};
    p.groups = s->groups / p.merged;
    p.in_c = s->in_c / p.groups;
    p.out_c = s->out_c / p.groups;
    choose_taps(s, &p);
    p.depth = p.in_c * s->kernel_h * s->kernel_w / p.taps;
    p.quads = (p.depth + 3) / 4;
    p.vectors = (p.out_c + 15) / 16;
    p.blocks = (p.vectors + block_vectors - 1) / block_vectors;
    p.row_bytes = (size_t)p.taps * p.quads * 4;
    p.group_bytes = (size_t)p.vectors * 64 * (1 + (size_t)p.taps * p.quads);
    choose_chunk(s, &p);
    return p;
}

size_t gemm_vnni_packed_size(const conv_shape *s, int block_vectors)
{
    const gemm_plan p = gemm_vnni_plan(s, block_vectors);
    return p.group_bytes * p.groups;
}

/* The weights w of one output channel to their places: steps of four are `step` bytes apart.
 * first: the channel's first input in the merged group. */
static void pack_column(const conv_shape *s, const gemm_plan *p, const int8_t *w, size_t first,
                        int8_t *to, size_t step)
{
    const int taps = s->kernel_h * s->kernel_w, in_tile = taps / p->taps;
    const size_t in_c = (size_t)(p->in_c / p->merged);
    size_t c = 0;
    if (taps == 1 && first % 4 == 0) /* four bytes at once */
        for (; c + 4 <= in_c; c += 4)
            memcpy(to + (first + c) / 4 * step, w + c, 4);
    for (int tap = 0; tap < taps; tap++) {
        int8_t *at = to + (size_t)(tap / in_tile) * p->quads * step;
        const size_t d = (size_t)(tap % in_tile) * p->in_c + first;
        for (size_t i = c; i < in_c; i++)
            at[(d + i) / 4 * step + (d + i) % 4] = w[i * taps + tap];
    }
}

static void pack_group(const conv_shape *s, const gemm_plan *p, const int8_t *w,
                       const int32_t *bias, int x_zero, char *packed)
{
    const size_t in_c = (size_t)(p->in_c / p->merged);
    const size_t per_output = in_c * s->kernel_h * s->kernel_w;
    uint32_t *b = (uint32_t *)(void *)packed;
    int8_t *to = (int8_t *)(b + (size_t)p->vectors * 16);
    memset(packed, 0, p->group_bytes);
    for (int block = 0; block < p->blocks; block++) {
        const int first = 16 * gemm_block_start(p, block);
        const int columns = 16 * gemm_block_start(p, block + 1) - first;
        for (int o = first; o < first + columns && o < p->out_c; o++) {
            const int8_t *from = w + o * per_output;
            int32_t sum = 0;
            for (size_t i = 0; i < per_output; i++)
                sum += from[i];
            /* modulo 2^32, as the products will be added */
            b[o] = (bias ? (uint32_t)bias[o] : 0) - (uint32_t)x_zero * (uint32_t)sum;
            pack_column(s, p, from, o / (p->out_c / p->merged) * in_c, to + 4 * (o - first),
                        4 * (size_t)columns);
        }
        to += (size_t)p->taps * p->quads * columns * 4;
    }
}

void gemm_vnni_pack(const conv_shape *s, int block_vectors, const int8_t *w, const int32_t *bias,
                    int x_zero, void *packed)
{
    const gemm_plan p = gemm_vnni_plan(s, block_vectors);
    const size_t per_output = (size_t)(s->in_c / s->groups) * s->kernel_h * s->kernel_w;
    for (int g = 0; g < p.groups; g++)
        pack_group(s, &p, w + (size_t)g * p.out_c * per_output,
                   bias ? bias + (size_t)g * p.out_c : NULL, x_zero,
                   (char *)packed + g * p.group_bytes);
}
