/* Products with float32 results by VPMADDWD, and ranges. */
#include "kernels/x86/dot_avx2.h"
#include "kernels/x86/product_ymm.h"

static float smallest(__m256 v)
{
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    for (int i = 1; i < 8; i++)
        lanes[0] = lanes[i] < lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
}

static float largest(__m256 v)
{
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    for (int i = 1; i < 8; i++)
        lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
}

/* min(x, lo) gives lo where x is NaN. */
void range_f32_avx2(const float *x, size_t n, float *lo, float *hi)
{
    __m256 a[2], b[2];
    a[0] = a[1] = b[0] = b[1] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        UNROLL
        for (int j = 0; j < 2; j++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            a[j] = _mm256_min_ps(v, a[j]);
            b[j] = _mm256_max_ps(v, b[j]);
        }
    }
    float least = smallest(_mm256_min_ps(a[0], a[1])), most = largest(_mm256_max_ps(b[0], b[1]));
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    *lo = least;
    *hi = most;
}
