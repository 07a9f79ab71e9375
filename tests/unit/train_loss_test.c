/* Losses against PyTorch's numbers, and their gradients against finite differences. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "train/loss.h"

enum { MOST = 64 };

typedef struct trial {
    tensor      y[2], t[2];
    float       y_data[2][MOST], t_data[2][MOST], dy[2][MOST];
    loss_output out[2];
} trial;

static void begin(trial *l, int rank, const int64_t *dims, uint64_t seed)
{
    rng r;
    rng_seed(&r, seed);
    for (int k = 0; k < 2; k++) {
        l->y[k] = (tensor){ .type = RUNG_F32, .rank = rank, .data = l->y_data[k] };
        memcpy(l->y[k].dims, dims, (size_t)rank * sizeof *dims);
        l->t[k] = l->y[k];
        l->t[k].data = l->t_data[k];
        for (int i = 0; i < MOST; i++) {
            l->y_data[k][i] = rng_normal(&r);
            l->t_data[k][i] = rng_normal(&r);
        }
        l->out[k] = (loss_output){ &l->y[k], &l->t[k], l->dy[k] };
    }
}

static double value_of(trial *l, const loss_options *opt, size_t n, const loss_targets *targets)
{
    double loss;
    size_t correct;
    assert_ok(loss_eval(opt, l->out, 1, 1, n, n + 1, targets, &loss, &correct, err));
    return loss;
}

/* Central differences in float32 inputs: with a step h the error is about h^2 / 6 times the third
 * derivative (below 10 here) plus rounding of the step itself, 2^-24 / h of the slope. */
static void expect_gradient(trial *l, const loss_options *opt, size_t n, const loss_targets *t)
{
    const float h = 1.0f / 256;
    float want[2][MOST];
    value_of(l, opt, n, t);
    memcpy(want, l->dy, sizeof want);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < tensor_count(&l->y[k]); i++) {
            const float at = l->y_data[k][i];
            l->y_data[k][i] = at + h;
            const double up = value_of(l, opt, n, t), above = l->y_data[k][i];
            l->y_data[k][i] = at - h;
            const double down = value_of(l, opt, n, t), below = l->y_data[k][i];
            l->y_data[k][i] = at;
            const double slope = (up - down) / (above - below);
            if (fabs(slope - want[k][i]) > 1e-4 * (1 + fabs(slope)))
                fail_msg("output %d, element %zu: %g, by differences %g", k, i, (double)want[k][i],
                         slope);
        }
}

static void finite_differences(void **state)
{
    (void)state;
    static const struct {
        int     rank;
        int64_t dims[4];
    } shapes[] = { { 2, { 3, 5 } }, { 4, { 2, 3, 2, 2 } }, { 3, { 2, 3, 4 } }, { 1, { 4 } } };
    const int64_t labels[] = { 0, -1, 0 }, mixed[] = { 0, 0, 0 };
    const float share[] = { 0.3f, 0.1f, 0.6f };
    const loss_options options[] = {
        { .cross_entropy = 0.7f },
        { .cross_entropy = 1, .label_smoothing = 0.2f },
        { .mse = 0.5f },
        { .distill = 1.5f, .temperature = 3 },
        { .distill = 1 },
        { .features = 2 },
        { .cross_entropy = 0.5f, .mse = 0.1f, .distill = 0.4f, .temperature = 2, .features = 0.3f },
    };
    for (int s = 0; s < COUNT(shapes); s++)
        for (int o = 0; o < COUNT(options); o++)
            for (int way = 0; way < 2; way++) {
                trial l;
                const loss_targets t = { labels, way ? mixed : NULL, share };
                begin(&l, shapes[s].rank, shapes[s].dims, (uint64_t)(s * 100 + o));
                expect_gradient(&l, &options[o], (size_t)shapes[s].dims[0] - 1, &t);
            }
}

/* torch 2.15: y = [[1, -0.5, 2], [0.2, 0.1, -3]], t = [[0.5, 0, 1.5], [1, -1, 0.3]], labels [2, 0];
 * F.cross_entropy(y, labels, label_smoothing=0.1),
 * 4 * F.kl_div(F.log_softmax(y / 2, 1), F.softmax(t / 2, 1), reduction='batchmean'),
 * F.mse_loss(y, t); gradients by torch.autograd.grad. */
static void against_torch(void **state)
{
    (void)state;
    static const float y[] = { 1, -0.5f, 2, 0.2f, 0.1f, -3 }, t[] = { 0.5f, 0, 1.5f, 1, -1, 0.3f };
    static const struct {
        loss_options opt;
        double       loss;
        float        dy[6];
    } want[] = {
        { { .cross_entropy = 1, .label_smoothing = 0.1f }, 0.631887972,
          { 0.11019142f, 0.011639196f, -0.12183064f, -0.20967647f, 0.21586767f, -0.006191182f } },
        { { .distill = 1, .temperature = 2 }, 0.62894243,
          { 0.028645158f, -0.075873002f, 0.047227859f, -0.01805234f, 0.26429054f, -0.24623828f } },
        { { .mse = 1 }, 2.24833322,
          { 0.16666667f, -0.16666667f, 0.16666667f, -0.26666668f, 0.36666667f, -1.1f } },
    };
    const int64_t labels[] = { 2, 0 };
    const loss_targets targets = { .labels = labels };
    for (int k = 0; k < COUNT(want); k++) {
        trial l;
        double loss;
        size_t correct;
        begin(&l, 2, DIMS(2, 3), 1);
        memcpy(l.y_data[0], y, sizeof y);
        memcpy(l.t_data[0], t, sizeof t);
        assert_ok(loss_eval(&want[k].opt, l.out, 1, 0, 2, 2, &targets, &loss, &correct, err));
        assert_int_equal(correct, 2);
        assert_true(fabs(loss - want[k].loss) < 1e-6);
        for (int i = 0; i < 6; i++)
            assert_true(fabsf(l.dy[0][i] - want[k].dy[i]) < 1e-6f);
    }
}

/* Pieces of a batch add up to the whole, and what is beyond n gets no gradient. */
static void pieces_add_up(void **state)
{
    (void)state;
    trial l;
    const int64_t labels[] = { 1, 2, 3, 4 };
    const loss_options opt = { .cross_entropy = 1, .mse = 1, .distill = 1, .features = 1 };
    double all, part, sum = 0;
    begin(&l, 2, DIMS(4, 5), 5);
    for (int k = 0; k < 2; k++)
        l.dy[k][17] = NAN; /* written whole */
    const loss_targets whole = { .labels = labels };
    assert_ok(loss_eval(&opt, l.out, 1, 1, 4, 4, &whole, &all, NULL, err));
    for (int i = 0; i < 4; i++) {
        memmove(l.y_data[0], l.y_data[0] + (i ? 5 : 0), 15 * sizeof(float));
        memmove(l.t_data[0], l.t_data[0] + (i ? 5 : 0), 15 * sizeof(float));
        memmove(l.y_data[1], l.y_data[1] + (i ? 5 : 0), 15 * sizeof(float));
        memmove(l.t_data[1], l.t_data[1] + (i ? 5 : 0), 15 * sizeof(float));
        const loss_targets one = { .labels = labels + i };
        assert_ok(loss_eval(&opt, l.out, 1, 1, 1, 4, &one, &part, NULL, err));
        sum += part;
        for (int k = 5; k < 20; k++)
            assert_true(l.dy[0][k] == 0 && l.dy[1][k] == 0);
    }
    assert_true(fabs(sum - all) < 1e-9 * fabs(all));
}

static void bad_labels(void **state)
{
    (void)state;
    trial l;
    const int64_t labels[] = { 1, 5 };
    const loss_targets t = { .labels = labels };
    const loss_options opt = { .cross_entropy = 1 };
    double loss;
    begin(&l, 2, DIMS(2, 5), 5);
    assert_fails(loss_eval(&opt, l.out, 1, 0, 2, 2, &t, &loss, NULL, err), RUNG_EARGUMENT,
                 "label 5: the first output has 5 scores");
    l.t[0].data = NULL;
    const loss_options follow = { .distill = 1, .mse = 1 };
    assert_ok(loss_eval(&follow, l.out, 1, 0, 1, 2, &t, &loss, NULL, err));
    assert_true(loss == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finite_differences), cmocka_unit_test(against_torch),
        cmocka_unit_test(pieces_add_up),      cmocka_unit_test(bad_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
