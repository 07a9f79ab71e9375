/* Augmentation and checkpoints. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "ops/ops.h"
#include "train/augment.h"
#include "train/checkpoint.h"

enum { N = 6, C = 2, SIDE = 8, SAMPLE = C * SIDE * SIDE };

typedef struct images {
    float       x[N * SAMPLE];
    int64_t     labels[N];
    size_t      samples[N];
    batch_input input;
    batch       b;
} images;

/* Sample i is filled with i + 1 at the left and -(i + 1) at the right half. */
static void fill(images *m, bool channels_last)
{
    for (int i = 0; i < N; i++) {
        m->labels[i] = i;
        m->samples[i] = (size_t)(10 + i);
        for (int k = 0; k < SAMPLE; k++) {
            const int column = channels_last ? k / C % SIDE : k % SIDE;
            m->x[i * SAMPLE + k] = (float)(column < SIDE / 2 ? i + 1 : -i - 1);
        }
    }
    m->input = (batch_input){ "x", { RUNG_F32, 4, { N, C, SIDE, SIDE }, m->x } };
    if (channels_last)
        m->input.t = (rung_tensor){ RUNG_F32, 4, { N, SIDE, SIDE, C }, m->x };
    m->b = (batch){ .n = N, .n_inputs = 1, .inputs = &m->input, .labels = m->labels };
}

static void options_are_read(void **state)
{
    (void)state;
    augment_options o;
    assert_ok(augment_parse("crop=4,flip,cutout=8,mixup=0.2", &o, err));
    assert_true(o.crop == 4 && o.flip && o.cutout == 8 && o.mixup == 0.2f);
    assert_ok(augment_parse(NULL, &o, err));
    assert_true(!o.crop && !o.flip && !o.cutout && o.mixup == 0);
    static const char *const wrong[] = { "crop", "crop=0", "crop=1.5", "flip=1", "cutout=x",
                                         "mixup=0", "mixup=nan", "turn", "crop=4,,",
                                         "crop=4;flip" };
    for (int i = 0; i < COUNT(wrong); i++)
        assert_fails(augment_parse(wrong[i], &o, err), RUNG_EARGUMENT, "augmentation '");
}

static const float *changed(augmenter *a, images *m, size_t epoch)
{
    const batch *out;
    const int64_t *mixed;
    const float *share;
    assert_ok(augmenter_run(a, &m->b, m->samples, epoch, &out, &mixed, &share, err));
    return out->inputs[0].t.data;
}

/* Flips alone: each image is itself or its mirror, both occur, in both layouts. */
static void flips(void **state)
{
    (void)state;
    for (int last = 0; last < 2; last++) {
        images m;
        augmenter *a;
        const augment_options o = { .flip = true };
        int mirrored = 0;
        fill(&m, last);
        assert_ok(augmenter_create(&o, 7, &a, err));
        for (size_t epoch = 0; epoch < 4; epoch++) {
            const float *y = changed(a, &m, epoch);
            for (int i = 0; i < N; i++) {
                const float sign = y[i * SAMPLE] == m.x[i * SAMPLE] ? 1 : -1;
                mirrored += sign < 0;
                for (int k = 0; k < SAMPLE; k++)
                    assert_true(y[i * SAMPLE + k] == sign * m.x[i * SAMPLE + k]);
            }
        }
        assert_true(mirrored > 2 && mirrored < 4 * N - 2);
        augmenter_free(a);
    }
}

/* What becomes of a sample depends on the seed, the epoch and its number. */
static void depends_on_the_sample_alone(void **state)
{
    (void)state;
    images m;
    augmenter *a, *b;
    const augment_options o = { .crop = 3, .flip = true, .cutout = 2 };
    float first[SAMPLE];
    fill(&m, false);
    assert_ok(augmenter_create(&o, 7, &a, err));
    assert_ok(augmenter_create(&o, 8, &b, err));
    memcpy(first, changed(a, &m, 2) + 3 * SAMPLE, sizeof first);
    assert_true(memcmp(first, changed(a, &m, 3) + 3 * SAMPLE, sizeof first) != 0);
    assert_true(memcmp(first, changed(b, &m, 2) + 3 * SAMPLE, sizeof first) != 0);
    m.input.t.dims[0] = m.b.n = 1; /* the same sample alone in a batch */
    m.samples[0] = m.samples[3];
    memcpy(m.x, m.x + 3 * SAMPLE, sizeof first);
    assert_memory_equal(first, changed(a, &m, 2), sizeof first);
    augmenter_free(a);
    augmenter_free(b);
}

static void mixes(void **state)
{
    (void)state;
    images m;
    augmenter *a;
    const augment_options o = { .mixup = 0.5f };
    const batch *out;
    const int64_t *mixed;
    const float *share;
    fill(&m, false);
    assert_ok(augmenter_create(&o, 7, &a, err));
    assert_ok(augmenter_run(a, &m.b, m.samples, 0, &out, &mixed, &share, err));
    for (int i = 0; i < N; i++) {
        const float want = (1 - share[i]) * (float)(i + 1) + share[i] * (float)(mixed[i] + 1);
        assert_true(share[i] >= 0 && share[i] <= 0.5f && mixed[i] >= 0 && mixed[i] < N);
        assert_true(fabsf(((const float *)out->inputs[0].t.data)[i * SAMPLE] - want) < 1e-5f);
    }
    m.b.labels = NULL;
    assert_ok(augmenter_run(a, &m.b, m.samples, 0, &out, &mixed, &share, err));
    assert_null(mixed);
    augmenter_free(a);
}

static void wants_images(void **state)
{
    (void)state;
    images m;
    augmenter *a;
    const augment_options o = { .crop = 1 };
    const batch *out;
    const int64_t *mixed;
    const float *share;
    fill(&m, false);
    assert_ok(augmenter_create(&o, 7, &a, err));
    m.input.t = (rung_tensor){ RUNG_F32, 2, { N, SAMPLE }, m.x };
    assert_fails(augmenter_run(a, &m.b, m.samples, 0, &out, &mixed, &share, err), RUNG_EARGUMENT,
                 "images");
    augmenter_free(a);
}

/* By what a graph declares; what it does not is found when samples come. */
static void declared_shapes_are_checked(void **state)
{
    (void)state;
    static const struct {
        int             rank;
        int64_t         dims[4];
        augment_options opt;
        const char     *says; /* NULL: good */
    } cases[] = {
        { 4, { -1, 3, 32, 24 }, { .crop = 23, .flip = true, .cutout = 23 }, NULL },
        { 4, { -1, 3, 32, 24 }, { .crop = 24 }, "crop=24: nothing would be left" },
        { 4, { -1, 20, 32, 3 }, { .cutout = 20 }, "cutout=20" },
        { 4, { -1, 3, -1, -1 }, { .crop = 4000 }, NULL },
        { 4, { -1, 16, 8, 8 }, { .flip = true }, "[N,C,H,W]" },
        { 4, { -1, 16, 8, 8 }, { .mixup = 1 }, NULL },
        { 2, { -1, 10 }, { .flip = true }, "[N,C,H,W]" },
        { 2, { -1, 10 }, { .mixup = 0.5f }, NULL },
    };
    for (int i = 0; i < COUNT(cases); i++) {
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", cases[i].rank, cases[i].dims);
        kit_output(g, kit_node(g, "Relu", "relu", 1, IDS(x)));
        if (cases[i].says)
            assert_fails(augment_check(&cases[i].opt, g, err), RUNG_EARGUMENT, cases[i].says);
        else
            assert_ok(augment_check(&cases[i].opt, g, err));
        g->values[x].type = RUNG_I64;
        assert_fails(augment_check(&cases[i].opt, g, err), RUNG_EARGUMENT, "float32");
        graph_free(g);
    }
}

/* Read back as written; cut, changed or of another run it is refused, and nothing is filled. */
static void checkpoints(void **state)
{
    (void)state;
    int a[3] = { 1, 2, 3 }, b[2] = { 4, 5 }, c[3] = { 0 }, d[2] = { 0 };
    const checkpoint_block out[] = { { a, sizeof a }, { b, sizeof b } };
    const checkpoint_block in[] = { { c, sizeof c }, { d, sizeof d } };
    bool found = true;
    size_t n;
    assert_ok(checkpoint_read("none.bin", 9, in, 2, &found, err));
    assert_false(found);
    assert_ok(checkpoint_write("c.bin", 9, out, 2, err));
    assert_fails(checkpoint_read("c.bin", 8, in, 2, &found, err), RUNG_EARGUMENT, "other options");
    assert_fails(checkpoint_read("c.bin", 9, in, 1, &found, err), RUNG_EFORMAT, "damaged");
    assert_ok(checkpoint_read("c.bin", 9, in, 2, &found, err));
    assert_true(found);
    assert_memory_equal(a, c, sizeof a);
    assert_memory_equal(b, d, sizeof b);
    unsigned char copy[256];
    unsigned char *file = get_file("c.bin", &n);
    assert_true(n < sizeof copy);
    memcpy(copy, file, n);
    c[0] = 77;
    for (size_t i = 0; i < n; i++) {
        put_file("cut.bin", copy, i);
        assert_true(checkpoint_read("cut.bin", 9, in, 2, &found, NULL) != RUNG_OK);
        copy[i] ^= 4;
        put_file("flipped.bin", copy, n);
        copy[i] ^= 4;
        assert_true(checkpoint_read("flipped.bin", 9, in, 2, &found, NULL) != RUNG_OK);
    }
    assert_int_equal(c[0], 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read), cmocka_unit_test(flips),
        cmocka_unit_test(depends_on_the_sample_alone), cmocka_unit_test(mixes),
        cmocka_unit_test(wants_images),
        cmocka_unit_test(declared_shapes_are_checked),     cmocka_unit_test(checkpoints),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
