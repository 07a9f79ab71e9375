/* Dense linear algebra for the methods. Inner loops run along rows and carry no sums, so that the
 * compiler vectorises them; each element's additions have one order, whatever the threads. */
#include <math.h>
#include <omp.h>

#include "base/threads.h"
#include "quant/method.h"

enum { PANEL = 8, BLOCK = 256 };

/* c[j] += eight rows of b, each times its factor. */
static void add_rows(float *restrict c, const float *restrict b, size_t ldb, const float f[PANEL],
                     size_t n)
{
    const float *b1 = b + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb, *b4 = b3 + ldb, *b5 = b4 + ldb,
                *b6 = b5 + ldb, *b7 = b6 + ldb;
    for (size_t j = 0; j < n; j++)
        c[j] += ((f[0] * b[j] + f[1] * b1[j]) + (f[2] * b2[j] + f[3] * b3[j])) +
                ((f[4] * b4[j] + f[5] * b5[j]) + (f[6] * b6[j] + f[7] * b7[j]));
}

static void products_part(const float *a, size_t lda, size_t first, size_t last, const float *b,
                          size_t ldb, size_t n_b, size_t rows, float *c)
{
    for (size_t i = first; i < last; i++)
        for (size_t j = 0; j < n_b; j++)
            c[i * n_b + j] = 0;
    for (size_t j = 0; j < n_b; j += BLOCK) { /* eight rows of b's block stay in the L1 cache */
        const size_t n = n_b - j < BLOCK ? n_b - j : BLOCK;
        size_t r = 0;
        for (; r + PANEL <= rows; r += PANEL)
            for (size_t i = first; i < last; i++) {
                float f[PANEL];
                for (size_t k = 0; k < PANEL; k++)
                    f[k] = a[(r + k) * lda + i];
                add_rows(c + i * n_b + j, b + r * ldb + j, ldb, f, n);
            }
        for (; r < rows; r++)
            for (size_t i = first; i < last; i++)
                for (size_t k = 0; k < n; k++)
                    c[i * n_b + j + k] += a[r * lda + i] * b[r * ldb + j + k];
    }
}

void matrix_products(const float *a, size_t lda, size_t n_a, const float *b, size_t ldb, size_t n_b,
                     size_t rows, int n_threads, float *c)
{
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (int t = 0; t < n_threads; t++) {
        size_t first, last;
        share(n_a, 1, t, n_threads, &first, &last);
        products_part(a, lda, first, last, b, ldb, n_b, rows, c);
    }
}

/* Columns [k, end) of L, the columns before being subtracted already. column: [PANEL][n] copies. */
static bool factor_panel(double *a, size_t n, size_t k, size_t end, double *column)
{
    for (size_t j = k; j < end; j++) {
        const double pivot = a[j * n + j];
        if (!(pivot > 0) || !isfinite(pivot))
            return false;
        const double root = sqrt(pivot);
        double *own = column + (j - k) * n;
        for (size_t i = j; i < n; i++) {
            a[i * n + j] = i == j ? root : a[i * n + j] / root;
            own[i] = a[i * n + j];
        }
        for (size_t i = j + 1; i < n; i++)
            for (size_t c = j + 1; c < end && c <= i; c++)
                a[i * n + c] -= own[i] * own[c];
    }
    return true;
}

static void subtract_columns(double *restrict row, const double *restrict column, size_t n,
                             size_t n_columns, size_t i, size_t from)
{
    if (n_columns == PANEL) {
        const double *c0 = column, *c1 = c0 + n, *c2 = c1 + n, *c3 = c2 + n, *c4 = c3 + n,
                     *c5 = c4 + n, *c6 = c5 + n, *c7 = c6 + n;
        for (size_t j = from; j <= i; j++)
            row[j] -= ((c0[i] * c0[j] + c1[i] * c1[j]) + (c2[i] * c2[j] + c3[i] * c3[j])) +
                      ((c4[i] * c4[j] + c5[i] * c5[j]) + (c6[i] * c6[j] + c7[i] * c7[j]));
        return;
    }
    for (size_t k = 0; k < n_columns; k++)
        for (size_t j = from; j <= i; j++)
            row[j] -= column[k * n + i] * column[k * n + j];
}

bool matrix_cholesky(double *a, size_t n, int n_threads)
{
    arena *mem = arena_new();
    double *column = mem ? arena_alloc(mem, PANEL * n * sizeof *column) : NULL;
    bool good = column != NULL;
    for (size_t k = 0; k < n && good; k += PANEL) {
        const size_t end = n - k < PANEL ? n : k + PANEL;
        good = factor_panel(a, n, k, end, column);
#pragma omp parallel for schedule(dynamic, 16) num_threads(n_threads) if (good && n - end > 384)
        for (size_t i = end; i < n; i++)
            if (good)
                subtract_columns(a + i * n, column, n, end - k, i, end);
    }
    arena_free(mem);
    return good;
}

static void solve_part(const double *l, size_t n, double *b, size_t m, size_t first, size_t last)
{
    for (size_t i = 0; i < n; i++) {
        double *restrict row = b + i * m;
        for (size_t j = 0; j < i; j++)
            for (size_t c = first; c < last; c++)
                row[c] -= l[i * n + j] * b[j * m + c];
        for (size_t c = first; c < last; c++)
            row[c] /= l[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        double *restrict row = b + i * m;
        for (size_t c = first; c < last; c++)
            row[c] /= l[i * n + i];
        for (size_t j = 0; j < i; j++) {
            double *restrict to = b + j * m;
            for (size_t c = first; c < last; c++)
                to[c] -= l[i * n + j] * row[c];
        }
    }
}

void matrix_solve(const double *l, size_t n, double *b, size_t m, int n_threads)
{
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (int t = 0; t < n_threads; t++) {
        size_t first, last;
        share(m, 1, t, n_threads, &first, &last);
        if (first < last)
            solve_part(l, n, b, m, first, last);
    }
}
