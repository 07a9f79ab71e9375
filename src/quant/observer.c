/* The streaming histogram. */
#include "quant/histogram.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/threads.h"

enum {
    LANES = 16,      /* independent minima and maxima: the compiler makes vectors of them */
    BLOCK = 512,     /* elements whose slots are computed before they are counted */
    COUNTERS = 4,    /* private histograms of a thread: equal neighbours (zeros) would wait for
                      * one another's increment */
    SMALL = 1 << 15, /* elements up to which private histograms do not pay */
    MOST = 1 << 30,  /* elements that a 32-bit counter surely holds */
    MIN_EXPONENT = -126, SIDE_BITS = 12,
};

static const float ema_factor = 0.01f; /* PyTorch's and ONNX Runtime's averaging constant */

observer *observer_new(bool with_histogram)
{
    observer *o = mem_zero(1, sizeof *o);
    if (!o)
        return NULL;
    o->lo = INFINITY;
    o->hi = -INFINITY;
    o->exponent = MIN_EXPONENT;
    if (with_histogram && !(o->bins = mem_zero(HIST_SLOTS, sizeof *o->bins))) {
        mem_free(o);
        return NULL;
    }
    return o;
}

void observer_free(observer *o)
{
    if (!o)
        return;
    mem_free(o->bins);
    mem_free(o->trail);
    mem_free(o);
}

size_t observer_seen(const observer *o)
{
    return o->seen;
}

size_t observer_not_finite(const observer *o)
{
    return o->not_finite;
}

/* --- minimum and maximum ---------------------------------------------------------------------- */

typedef struct extent {
    float  lo, hi;
    size_t not_finite;
} extent;

static void extent_add(extent *e, float lo, float hi, size_t not_finite)
{
    e->lo = lo < e->lo ? lo : e->lo;
    e->hi = hi > e->hi ? hi : e->hi;
    e->not_finite += not_finite;
}

static extent measure(const float *x, size_t n)
{
    float lo[LANES], hi[LANES];
    uint32_t bad[LANES] = { 0 };
    extent e = { INFINITY, -INFINITY, 0 };
    size_t i = 0;
    for (int j = 0; j < LANES; j++) {
        lo[j] = INFINITY;
        hi[j] = -INFINITY;
    }
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            const float v = x[i + j];
            const bool finite = fabsf(v) <= FLT_MAX;
            const float low = finite ? v : INFINITY, high = finite ? v : -INFINITY;
            lo[j] = low < lo[j] ? low : lo[j];
            hi[j] = high > hi[j] ? high : hi[j];
            bad[j] += !finite;
        }
    }
    for (int j = 0; j < LANES; j++)
        extent_add(&e, lo[j], hi[j], bad[j]);
    for (; i < n; i++) {
        if (isfinite(x[i]))
            extent_add(&e, x[i], x[i], 0);
        else
            e.not_finite++;
    }
    return e;
}

static extent measure_all(const float *x, size_t n, int n_threads)
{
    extent all = { INFINITY, -INFINITY, 0 };
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (int t = 0; t < n_threads; t++) {
        size_t first, last;
        share(n, LANES, t, n_threads, &first, &last);
        const extent e = measure(x + first, last - first);
#pragma omp critical(rung_observer)
        extent_add(&all, e.lo, e.hi, e.not_finite);
    }
    all.lo += 0.0f; /* -0 would depend on the order */
    all.hi += 0.0f;
    return all;
}

/* --- counting --------------------------------------------------------------------------------- */

/* Width for which every |x| <= top is within HIST_SIDE bins. */
static int exponent_for(float top)
{
    int e;
    frexpf(top, &e);
    return top > 0 && e - SIDE_BITS > MIN_EXPONENT ? e - SIDE_BITS : MIN_EXPONENT;
}

/* Bins merge pairwise until they are 2^exponent wide: bin i of either side becomes bin i / 2. */
static void widen(observer *o, int exponent)
{
    if (!o->seen && o->exponent < exponent)
        o->exponent = exponent; /* nothing to merge */
    for (; o->exponent < exponent; o->exponent++) {
        uint64_t *up = o->bins + HIST_SIDE, *down = up - 1;
        for (int i = 0; i < HIST_SIDE / 2; i++) {
            up[i] = up[2 * i] + up[2 * i + 1];
            down[-i] = down[-2 * i] + down[-2 * i - 1];
        }
        memset(up + HIST_SIDE / 2, 0, HIST_SIDE / 2 * sizeof *up);
        memset(o->bins, 0, HIST_SIDE / 2 * sizeof *up);
    }
}

static void find_slots(const float *x, size_t n, float per_width, int32_t *slot)
{
    for (size_t i = 0; i < n; i++) {
        const float a = fabsf(x[i]);
        const bool finite = a <= FLT_MAX;
        const int32_t k = (int32_t)((finite ? a : 0.0f) * per_width);
        int32_t at = x[i] < 0.0f ? HIST_SIDE - 1 - k : HIST_SIDE + k;
        at = a == 0.0f ? HIST_ZERO : at;
        slot[i] = finite ? at : HIST_TRASH;
    }
}

static void count_few(const float *x, size_t n, float per_width, uint64_t *bins)
{
    int32_t slot[BLOCK];
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        find_slots(x + at, m, per_width, slot);
        for (size_t i = 0; i < m; i++)
            bins[slot[i]]++;
    }
}

/* At most MOST elements; adds to bins when done. */
static void count_many(const float *x, size_t n, float per_width, uint64_t *bins)
{
    uint32_t own[COUNTERS][HIST_SLOTS];
    int32_t slot[BLOCK] = { 0 };
    memset(own, 0, sizeof own);
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        size_t i = 0;
        find_slots(x + at, m, per_width, slot);
        for (; i + COUNTERS <= m; i += COUNTERS)
            for (int j = 0; j < COUNTERS; j++)
                own[j][slot[i + (size_t)j]]++;
        for (; i < m; i++)
            own[0][slot[i]]++;
    }
#pragma omp critical(rung_observer)
    for (int s = 0; s < HIST_SLOTS; s++)
        for (int j = 0; j < COUNTERS; j++)
            bins[s] += own[j][s];
}

static void count_all(observer *o, const float *x, size_t n, int n_threads)
{
    const float per_width = ldexpf(1, -o->exponent);
    if (n <= SMALL) {
        count_few(x, n, per_width, o->bins);
        return;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1)
    for (int t = 0; t < n_threads; t++) {
        size_t first, last;
        share(n, BLOCK, t, n_threads, &first, &last);
        for (; first < last; first += MOST)
            count_many(x + first, last - first < MOST ? last - first : MOST, per_width, o->bins);
    }
}

/* --- the observer ----------------------------------------------------------------------------- */

/* By the range of one more batch. */
static void move_average(observer *o, float lo, float hi)
{
    const float step = o->seen ? ema_factor : 1;
    o->ema_lo += step * (lo - o->ema_lo);
    o->ema_hi += step * (hi - o->ema_hi);
}

void observer_see(observer *o, const float *x, size_t n, int n_threads)
{
    if (n <= SMALL || n_threads < 1)
        n_threads = 1;
    const extent e = measure_all(x, n, n_threads);
    o->not_finite += e.not_finite;
    if (e.lo > e.hi)
        return; /* no finite value */
    move_average(o, e.lo, e.hi);
    if (o->n_trail < o->most) {
        o->trail[2 * o->n_trail] = e.lo;
        o->trail[2 * o->n_trail++ + 1] = e.hi;
    }
    o->lo = e.lo < o->lo ? e.lo : o->lo;
    o->hi = e.hi > o->hi ? e.hi : o->hi;
    if (o->bins) {
        widen(o, exponent_for(fmaxf(fabsf(e.lo), fabsf(e.hi))));
        count_all(o, x, n, n_threads);
    }
    o->seen += n - e.not_finite;
}

void observer_merge(observer *a, const observer *b)
{
    a->not_finite += b->not_finite;
    if (!b->seen)
        return;
    a->ema_lo = a->seen && a->ema_lo < b->ema_lo ? a->ema_lo : b->ema_lo;
    a->ema_hi = a->seen && a->ema_hi > b->ema_hi ? a->ema_hi : b->ema_hi;
    a->lo = b->lo < a->lo ? b->lo : a->lo;
    a->hi = b->hi > a->hi ? b->hi : a->hi;
    if (a->bins && b->bins) {
        widen(a, b->exponent);
        /* b's bins may be narrower: its bin i lies in a's bin i >> wider, on either side. */
        const int wider = a->exponent - b->exponent;
        for (int i = 0; i < HIST_SIDE; i++) {
            const int to = wider < SIDE_BITS ? i >> wider : 0;
            a->bins[HIST_SIDE + to] += b->bins[HIST_SIDE + i];
            a->bins[HIST_SIDE - 1 - to] += b->bins[HIST_SIDE - 1 - i];
        }
        a->bins[HIST_ZERO] += b->bins[HIST_ZERO];
    }
    a->seen += b->seen;
}

rung_status observer_keep_trail(observer *o, size_t n_batches, rung_error *err)
{
    o->most = n_batches;
    o->trail = mem_zero(n_batches + 1, 2 * sizeof *o->trail);
    return o->trail ? RUNG_OK : fail_memory(err, "ranges of batches", n_batches * 8);
}

void observer_append(observer *a, const observer *b)
{
    observer average = *a;
    for (size_t i = 0; i < b->n_trail; i++) {
        move_average(&average, b->trail[2 * i], b->trail[2 * i + 1]);
        average.seen = 1;
    }
    observer_merge(a, b);
    a->ema_lo = average.ema_lo;
    a->ema_hi = average.ema_hi;
}
