/* Strided copies: every operator that only moves elements. */
#include <string.h>

#include "kernels/kernels.h"

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Outer dims first: the larger step in y is the outer one, then the larger step in x. */
static bool is_inner(const copy_shape *s, int i, int j)
{
    const int64_t yi = magnitude(s->y_strides[i]), yj = magnitude(s->y_strides[j]);
    return yi != yj ? yi < yj : magnitude(s->x_strides[i]) < magnitude(s->x_strides[j]);
}

static void swap_dims(copy_shape *s, int i, int j)
{
    const int64_t d = s->dims[i], x = s->x_strides[i], y = s->y_strides[i];
    s->dims[i] = s->dims[j], s->x_strides[i] = s->x_strides[j], s->y_strides[i] = s->y_strides[j];
    s->dims[j] = d, s->x_strides[j] = x, s->y_strides[j] = y;
}

static void merge_dims(copy_shape *s)
{
    int kept = 0;
    for (int i = 0; i < s->rank; i++) {
        const int64_t d = s->dims[i], x = s->x_strides[i], y = s->y_strides[i];
        if (d == 1)
            continue;
        if (kept > 0 && s->x_strides[kept - 1] == d * x && s->y_strides[kept - 1] == d * y) {
            s->dims[kept - 1] *= d;
        } else {
            s->dims[kept++] = d;
        }
        s->x_strides[kept - 1] = x;
        s->y_strides[kept - 1] = y;
    }
    if (kept == 0) {
        s->dims[0] = s->x_strides[0] = s->y_strides[0] = 1;
        kept = 1;
    }
    s->rank = kept;
}

/* Long lines, even with steps, beat many short ones; a few bytes in one piece are long enough. */
static void lengthen_lines(copy_shape *s)
{
    const int inner = s->rank - 1;
    const bool piece = s->x_strides[inner] == 1 && s->y_strides[inner] == 1;
    if (inner > 0 && s->dims[inner] < 16 && s->dims[inner - 1] > s->dims[inner] &&
        !(piece && s->dims[inner] * s->elem >= 4))
        swap_dims(s, inner - 1, inner);
}

void copy_shape_normalise(copy_shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (s->dims[i] == 0) {
            s->rank = 1;
            s->dims[0] = 0;
            s->x_strides[0] = s->y_strides[0] = 1;
            return;
        }
    for (int i = 1; i < s->rank; i++)
        for (int j = i; j > 0 && is_inner(s, j - 1, j); j--)
            swap_dims(s, j - 1, j);
    merge_dims(s);
    lengthen_lines(s);
}

#define COPY_LINE(type)                                                                            \
    for (int64_t i = 0; i < n; i++)                                                                \
        memcpy(y + i * ys, x + i * xs, sizeof(type));

/* n elements, steps in bytes. */
static void copy_line(const char *x, int64_t xs, char *y, int64_t ys, int64_t n, int elem)
{
    if (xs == elem && ys == elem) {
        memcpy(y, x, (size_t)(n * elem));
        return;
    }
    switch (elem) {
    case 1:
        COPY_LINE(uint8_t)
        break;
    case 2:
        COPY_LINE(uint16_t)
        break;
    case 4:
        COPY_LINE(uint32_t)
        break;
    default:
        COPY_LINE(uint64_t)
        break;
    }
}

/* Lines [first, last): a line is the innermost dim, lines count through the outer ones. */
static void copy_lines(const copy_shape *s, const char *x, char *y, size_t first, size_t last)
{
    const int inner = s->rank - 1;
    int64_t at[COPY_MAX_RANK] = {0}, xo = 0, yo = 0;
    size_t rest = first;
    for (int d = inner - 1; d >= 0; d--) {
        at[d] = (int64_t)(rest % (size_t)s->dims[d]);
        rest /= (size_t)s->dims[d];
        xo += at[d] * s->x_strides[d];
        yo += at[d] * s->y_strides[d];
    }
    for (size_t line = first; line < last; line++) {
        copy_line(x + xo * s->elem, s->x_strides[inner] * s->elem, y + yo * s->elem,
                  s->y_strides[inner] * s->elem, s->dims[inner], s->elem);
        for (int d = inner - 1; d >= 0; d--) {
            xo += s->x_strides[d];
            yo += s->y_strides[d];
            if (++at[d] < s->dims[d])
                break;
            xo -= s->dims[d] * s->x_strides[d];
            yo -= s->dims[d] * s->y_strides[d];
            at[d] = 0;
        }
    }
}

void copy_strided(const copy_shape *s, const void *x, void *y, int thread, int n_threads)
{
    size_t lines = 1, first, last;
    for (int d = 0; d < s->rank; d++)
        if (s->dims[d] == 0)
            return;
    for (int d = 0; d < s->rank - 1; d++)
        lines *= (size_t)s->dims[d];
    if (s->rank == 0) {
        if (thread == 0)
            copy_line(x, s->elem, y, s->elem, 1, s->elem);
    } else if (lines == 1) {
        kernel_share((size_t)s->dims[s->rank - 1], 64, thread, n_threads, &first, &last);
        const int64_t xs = s->x_strides[s->rank - 1] * s->elem;
        const int64_t ys = s->y_strides[s->rank - 1] * s->elem;
        copy_line((const char *)x + (int64_t)first * xs, xs, (char *)y + (int64_t)first * ys, ys,
                  (int64_t)(last - first), s->elem);
    } else {
        kernel_share(lines, 1, thread, n_threads, &first, &last);
        copy_lines(s, x, y, first, last);
    }
}
