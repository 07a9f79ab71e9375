/* GPTQ in blocks: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
 * Pre-trained Transformers", ICLR 2023 (arXiv 2210.17323).
 *
 * With H the inputs' sums of squares and H = L L', the error e' H e of a column's rounding e is
 * built up from the last input to the first: each takes the code next to its weight less what the
 * errors before it have done already. Two orders are tried: inputs by their size, with the scales
 * of plain rounding, and as they stand, where a block's scale is chosen when the walk comes to it,
 * for the weights it is to stand for by then. For the codes that come out the scales of least error
 * are a small linear system. */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"
#include "quant/rounding.h"

static const double RIDGE = 0.01; /* of the mean diagonal, as in the paper */

typedef struct problem {
    const matrix_format *m;
    const float         *w, *h;
    const double        *l;     /* factor of h in `order` */
    const size_t        *order; /* place -> input */
    bool                 moving; /* order is that of the inputs; scales move with the weights */
    block_codes         *c;
} problem;

/* Scratch of one thread, of doubles and floats [in] each. */
typedef struct column {
    double *carried, *target, *small;
    float  *w;
    int8_t *q;
} column;

static size_t blocks_of(const matrix_format *m)
{
    return (m->in + m->block - 1) / m->block;
}

bool block_codes_new(arena *mem, const matrix_format *m, block_codes *c)
{
    c->codes = arena_zero(mem, m->in, m->out);
    c->zeros = arena_zero(mem, blocks_of(m), m->out);
    c->scales = arena_zero(mem, blocks_of(m) * m->out, sizeof *c->scales);
    return c->codes && c->zeros && c->scales;
}

bool block_codes_nearest(const tensor *w, const matrix_format *m, block_codes *c)
{
    int8_t *scratch = mem_alloc(m->block);
    if (scratch)
        blocks_quantize(w, 0, m->block, &m->f, c->scales, c->zeros, c->codes, scratch);
    mem_free(scratch);
    return scratch != NULL;
}

/* Zero points are 0 to 255 in int8_t. */
static int zero_at(const matrix_format *m, const block_codes *c, size_t at)
{
    return m->f.symmetric ? 0 : (uint8_t)c->zeros[at];
}

static int code_at(const matrix_format *m, const block_codes *c, size_t at)
{
    return m->f.symmetric ? c->codes[at] : (uint8_t)c->codes[at];
}

void block_codes_change(const float *w, const matrix_format *m, const block_codes *c, float *d)
{
    for (size_t i = 0; i < m->in; i++)
        for (size_t o = 0; o < m->out; o++) {
            const size_t at = i * m->out + o, b = i / m->block * m->out + o;
            d[at] = (float)(code_at(m, c, at) - zero_at(m, c, b)) * c->scales[b] - w[at];
        }
}

/* --- one column ------------------------------------------------------------------------------- */

/* What the weights of places [first, end) should be by now: the solution of the block's own
 * triangle for what is carried. */
static void block_targets(const problem *p, const column *k, size_t first, size_t end)
{
    for (size_t i = end; i-- > first;) {
        double sum = k->carried[i];
        for (size_t j = i + 1; j < end; j++)
            sum += p->l[j * p->m->in + i] * k->target[j];
        k->target[i] = -sum / p->l[i * p->m->in + i];
    }
    for (size_t i = first; i < end; i++)
        k->target[i] = k->w[i] - k->target[i];
}

static void choose_scale(const problem *p, const column *k, size_t o, size_t b)
{
    const matrix_format *m = p->m;
    const size_t first = b * m->block, end = first + m->block < m->in ? first + m->block : m->in;
    float *t = (float *)k->small;
    int zero = 0;
    block_targets(p, k, first, end);
    for (size_t i = first; i < end; i++)
        t[i - first] = (float)k->target[i];
    block_quantize(t, end - first, 1, &m->f, &p->c->scales[b * m->out + o], &zero, k->q);
    p->c->zeros[b * m->out + o] = (int8_t)zero;
}

static void round_column(const problem *p, const column *k, size_t o)
{
    const matrix_format *m = p->m;
    const size_t in = m->in;
    for (size_t i = 0; i < in; i++) {
        const float w = p->w[i * m->out + o];
        k->w[i] = isfinite(w) ? w : 0;
        k->carried[i] = 0;
    }
    for (size_t at = in; at-- > 0;) {
        const size_t i = p->order[at], b = i / m->block;
        if (p->moving && (at + 1 == in || (at + 1) % m->block == 0))
            choose_scale(p, k, o, b);
        const double *row = p->l + at * in;
        const double scale = p->c->scales[b * m->out + o];
        const int zero = zero_at(m, p->c, b * m->out + o);
        const double want = (k->w[i] + k->carried[at] / row[at]) / scale + zero;
        const double code = fmin(fmax(nearbyint(want), m->f.lo), m->f.hi);
        const double error = k->w[i] - (code - zero) * scale;
        p->c->codes[i * m->out + o] = (int8_t)(int)code;
        for (size_t j = 0; j < at; j++)
            k->carried[j] += row[j] * error;
    }
}

/* Scales of least error for the codes of column o: A s = r with A[a][b] = c_a' H c_b and r[a] =
 * c_a' H w, where c_a are the codes of block a. a: [n][n] and r: [n] in k->small. */
static void refit_scales(const problem *p, const column *k, size_t o)
{
    const matrix_format *m = p->m;
    const size_t n = blocks_of(m), in = m->in;
    double *a = k->small, *r = a + n * n, ridge = 0;
    for (size_t i = 0; i < in; i++)
        k->target[i] = code_at(m, p->c, i * m->out + o) -
                       zero_at(m, p->c, i / m->block * m->out + o);
    memset(a, 0, (n * n + n) * sizeof *a);
    for (size_t i = 0; i < in; i++) {
        const float *h = p->h + i * in;
        const double c = k->target[i];
        double *row = a + i / m->block * n, sum = 0;
        for (size_t j = 0; j < in && c != 0; j++) {
            row[j / m->block] += c * h[j] * k->target[j];
            sum += h[j] * (double)p->w[j * m->out + o];
        }
        r[i / m->block] += c * sum;
    }
    for (size_t b = 0; b < n; b++)
        ridge += a[b * n + b] / (double)n;
    for (size_t b = 0; b < n; b++) { /* towards the scales that are there */
        a[b * n + b] += 1e-4 * ridge + DBL_MIN;
        r[b] += (1e-4 * ridge + DBL_MIN) * p->c->scales[b * m->out + o];
    }
    if (!matrix_cholesky(a, n, 1))
        return;
    matrix_solve(a, n, r, 1, 1);
    for (size_t b = 0; b < n; b++)
        if (r[b] >= FLT_MIN && r[b] <= FLT_MAX)
            p->c->scales[b * m->out + o] = (float)r[b];
}

static bool column_new(arena *mem, const matrix_format *m, column *k)
{
    const size_t n = blocks_of(m), small = n * n + n > m->block ? n * n + n : m->block;
    k->carried = arena_alloc(mem, m->in * sizeof(double));
    k->target = arena_alloc(mem, m->in * sizeof(double));
    k->small = arena_alloc(mem, small * sizeof(double));
    k->w = arena_alloc(mem, m->in * sizeof(float));
    k->q = arena_alloc(mem, m->block);
    return k->carried && k->target && k->small && k->w && k->q;
}

static void columns_part(const problem *p, const column *k, size_t first, size_t last, bool refit)
{
    for (size_t o = first; o < last; o++)
        if (refit)
            refit_scales(p, k, o);
        else
            round_column(p, k, o);
}

static bool all_columns(const problem *p, int n_threads, bool refit)
{
    arena *mem = arena_new();
    column *k = mem ? arena_zero(mem, (size_t)n_threads, sizeof *k) : NULL;
    bool good = k != NULL;
    for (int t = 0; t < n_threads && good; t++)
        good = column_new(mem, p->m, &k[t]);
    if (good) {
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
        for (int t = 0; t < n_threads; t++) {
            size_t first, last;
            share(p->m->out, 1, t, n_threads, &first, &last);
            columns_part(p, &k[t], first, last, refit);
        }
    }
    arena_free(mem);
    return good;
}

/* --- one matrix ------------------------------------------------------------------------------- */

/* Orders by the diagonal of h, and the factor of h in that order; false: it has none. */
static bool factor(const float *h, size_t in, bool by_size, size_t *order, double *l, int n_threads)
{
    double mean = 0;
    for (size_t i = 0; i < in; i++) {
        size_t k = i;
        mean += h[i * in + i] / (double)in;
        for (; by_size && k > 0 && h[order[k - 1] * (in + 1)] > h[i * (in + 1)]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    for (size_t i = 0; i < in; i++)
        for (size_t j = 0; j <= i; j++)
            l[i * in + j] = h[order[i] * in + order[j]] + (i == j ? RIDGE * mean : 0);
    return mean > 0 && isfinite(mean) && matrix_cholesky(l, in, n_threads);
}

/* The best so far, and the scratch to tell. */
typedef struct contest {
    const tensor        *w;
    const matrix_format *m;
    const float         *check;
    int                  n_threads;
    float               *d;
    block_codes         *best;
    double               least;
} contest;

static void compete(contest *c, const block_codes *trial)
{
    const matrix_format *m = c->m;
    block_codes_change(c->w->data, m, trial, c->d);
    const double error = moments_error(c->check, c->d, m->in, m->out, c->n_threads);
    if (!(error < c->least))
        return;
    c->least = error;
    memcpy(c->best->codes, trial->codes, m->in * m->out);
    memcpy(c->best->zeros, trial->zeros, blocks_of(m) * m->out);
    memcpy(c->best->scales, trial->scales, blocks_of(m) * m->out * sizeof *trial->scales);
}

rung_status gptq_matrix(const tensor *w, const matrix_format *m, const float *h, const float *check,
                        int n_threads, block_codes *c, double *before, double *after,
                        rung_error *err)
{
    arena *mem = arena_new();
    size_t *order = mem ? arena_alloc(mem, m->in * sizeof *order) : NULL;
    double *l = mem ? arena_alloc(mem, m->in * m->in * sizeof *l) : NULL;
    float *d = mem ? arena_alloc(mem, m->in * m->out * sizeof *d) : NULL;
    block_codes trial;
    contest all = { .w = w, .m = m, .check = check, .n_threads = n_threads, .d = d, .best = c,
                    .least = INFINITY };
    bool good = order && l && d && block_codes_new(mem, m, &trial) &&
                block_codes_nearest(w, m, &trial);
    if (good)
        compete(&all, &trial);
    *before = all.least;
    for (int way = 0; way < 2 && good; way++) {
        problem p = { m, w->data, h, l, order, way == 1, &trial };
        if (!factor(h, m->in, way == 0, order, l, n_threads))
            break;
        good = block_codes_nearest(w, m, &trial) && all_columns(&p, n_threads, false);
        if (good)
            compete(&all, &trial);
        good = good && all_columns(&p, n_threads, true);
        if (good)
            compete(&all, &trial);
    }
    *after = all.least;
    arena_free(mem);
    return good ? RUNG_OK : fail_memory(err, "rounding a matrix", m->in * m->in * sizeof *l);
}
