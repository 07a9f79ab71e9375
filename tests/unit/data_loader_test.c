/* The loader: order, workers, failures in their place, and bounded memory. */
#include "data_files.h"

#include <zlib.h>

#include "base/mem.h"
#include "data/data.h"
#include "data/npy.h"

enum { N_IMAGES = 23 };

static dataset *open_images(const char *spec, const char *pre, int n_workers)
{
    dataset_options opt = {.n_workers = n_workers};
    dataset *d;
    rung_error err = {""};
    assert_int_equal(preprocess_parse(pre, &opt.pre, NULL), RUNG_OK);
    if (dataset_open(spec, &opt, &d, &err) != RUNG_OK)
        fail_msg("%s: %s", spec, err.message);
    return d;
}

static int make_images(void **state)
{
    if (enter_folder(state) != 0)
        return -1;
    make_folder("many");
    for (int i = 0; i < N_IMAGES; i++) {
        char path[64];
        snprintf(path, sizeof path, "many/%02d.png", i);
        put_png(path, 10 + i, 40 - i, i % 5 ? 3 : 1, (uint8_t)(3 * i));
    }
    return 0;
}

static uint32_t checksum(loader *l, size_t batch_size)
{
    uint32_t sum = 0;
    const batch *b;
    rung_error err = {""};
    size_t n = 0;
    for (;;) {
        if (loader_next(l, &b, &err) != RUNG_OK)
            fail_msg("%s", err.message);
        if (!b)
            break;
        assert_int_equal(b->first, n);
        const rung_tensor *t = &b->inputs[0].t;
        assert_int_equal(t->rank, 4);
        size_t bytes = sizeof(float);
        for (int i = 0; i < 4; i++)
            bytes *= (size_t)t->dims[i];
        sum = (uint32_t)crc32(sum, t->data, (uInt)bytes);
        n += b->n;
        assert_true(b->n == batch_size || n == N_IMAGES);
    }
    assert_int_equal(n, N_IMAGES);
    assert_int_equal(loader_next(l, &b, &err), RUNG_OK); /* the end stays the end */
    assert_null(b);
    return sum;
}

static void workers_do_not_matter(void **state)
{
    size_t order[N_IMAGES];
    uint32_t first = 0;
    assert_int_equal(sample_order(N_IMAGES, N_IMAGES, 4, order, NULL), RUNG_OK);
    for (int workers = 0; workers <= 8; workers = workers ? 2 * workers : 1)
        for (size_t size = 1; size <= 64; size *= 4) {
            dataset *d = open_images("many", "resize=20x16,crop=12,color=rgb", workers);
            loader *l;
            assert_int_equal(loader_open(d, order, N_IMAGES, size, &l, NULL), RUNG_OK);
            const uint32_t sum = checksum(l, size);
            if (!first)
                first = sum;
            assert_int_equal(sum, first);
            loader_free(l);
            dataset_free(d);
        }
}

static void orders(void **state)
{
    size_t a[50], b[50], seen[50] = {0};
    rung_error err = {""};
    assert_int_equal(sample_order(50, 50, 1, a, NULL), RUNG_OK);
    assert_int_equal(sample_order(50, 20, 1, b, NULL), RUNG_OK);
    assert_memory_equal(a, b, 20 * sizeof *a);
    for (int i = 0; i < 50; i++)
        seen[a[i]]++;
    for (int i = 0; i < 50; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(sample_order(50, 50, 2, b, NULL), RUNG_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(sample_order(0, 0, 2, b, NULL), RUNG_OK);
    assert_int_equal(sample_order(50, 51, 2, b, &err), RUNG_EARGUMENT);
    assert_says(&err, "51|50");
}

static void wrong_arguments(void **state)
{
    dataset *d = open_images("many", "resize=4x4", 1);
    const size_t order[] = {0, N_IMAGES};
    loader *l;
    const batch *b;
    rung_error err = {""};
    assert_int_equal(loader_open(d, NULL, 0, 0, &l, &err), RUNG_EARGUMENT);
    assert_int_equal(loader_open(d, order, 2, 1, &l, &err), RUNG_EARGUMENT);
    assert_says(&err, "sample 23");
    assert_int_equal(loader_open(d, order, 0, 1, &l, &err), RUNG_OK); /* none is not all */
    assert_int_equal(loader_next(l, &b, &err), RUNG_OK);
    assert_null(b);
    loader_free(l);
    loader_free(NULL);
    dataset_free(d);
    dataset_free(NULL);
}

/* Reads until the failure, which stays; returns the number of good batches before it. */
static size_t until_failure(dataset *d, size_t size, rung_error *err)
{
    loader *l;
    const batch *b;
    size_t n = 0;
    assert_int_equal(loader_open(d, NULL, 0, size, &l, NULL), RUNG_OK);
    while (loader_next(l, &b, err) == RUNG_OK && b)
        n++;
    assert_null(b);
    rung_error again = {""};
    assert_int_not_equal(loader_next(l, &b, &again), RUNG_OK);
    assert_string_equal(again.message, err->message);
    loader_free(l);
    return n;
}

static void failures_come_in_their_place(void **state)
{
    make_folder("bad");
    for (int i = 0; i < 12; i++) {
        char path[64];
        snprintf(path, sizeof path, "bad/%02d.png", i);
        put_png(path, 8, 8, 3, 1);
    }
    size_t n;
    const unsigned char *png = get_file("bad/00.png", &n);
    put_file("bad/07.png", png, n - 20);
    put_text("bad/10.png", "not an image");
    put_text("bad/11.png", "");
    for (int workers = 1; workers <= 4; workers *= 2)
        for (size_t size = 1; size <= 16; size *= 2) {
            rung_error err = {""};
            dataset *d = open_images("bad", NULL, workers);
            assert_int_equal(until_failure(d, size, &err), 7 / size);
            assert_says(&err, "bad/07.png|truncated");
            dataset_free(d);
        }
    rung_error err = {""};
    dataset *d = open_images("bad@9:", NULL, 1);
    assert_int_equal(until_failure(d, 1, &err), 1);
    assert_says(&err, "bad/10.png|neither a JPEG nor a PNG");
    dataset_free(d);
    d = open_images("bad@11:", NULL, 1);
    assert_int_equal(until_failure(d, 1, &err), 0);
    assert_says(&err, "bad/11.png|empty");
    assert_int_equal(unlink("bad/11.png"), 0);
    assert_int_equal(until_failure(d, 1, &err), 0);
    assert_says(&err, "bad/11.png|No such file");
    dataset_free(d);
}

static void sizes_that_differ(void **state)
{
    for (int workers = 1; workers <= 4; workers++) {
        rung_error err = {""};
        dataset *d = open_images("many@1:", NULL, workers);
        assert_int_equal(until_failure(d, 4, &err), 0);
        assert_says(&err, "many/02.png|3x38x12|many/01.png|3x39x11|resize=WxH|crop=N|color=rgb");
        dataset_free(d);
        d = open_images("many", "crop=30", workers);
        assert_int_equal(until_failure(d, 4, &err), 0);
        assert_says(&err, "many/00.png|crop=30x30|10x40|larger");
        dataset_free(d);
    }
}

static void stopping_midway(void **state)
{
    for (int workers = 1; workers <= 4; workers++)
        for (int n = 0; n < 4; n++) {
            dataset *d = open_images("many", "resize=64x64,color=rgb", workers);
            loader *l;
            const batch *b;
            assert_int_equal(loader_open(d, NULL, 0, 2, &l, NULL), RUNG_OK);
            for (int i = 0; i < n; i++)
                assert_int_equal(loader_next(l, &b, NULL), RUNG_OK);
            loader_free(l);
            dataset_free(d);
        }
}

/* Each allocation fails in turn: RUNG_EMEMORY, nothing leaks, nothing hangs. */
static void memory_runs_out(void **state)
{
    dataset_options opt = {.n_workers = 2};
    assert_int_equal(preprocess_parse("resize=8x8,color=rgb", &opt.pre, NULL), RUNG_OK);
    for (long fails = 0, is_done = 0; !is_done; fails++) {
        dataset *d = NULL;
        loader *l = NULL;
        const batch *b = NULL;
        mem_fail_after(fails);
        rung_status st = dataset_open("many", &opt, &d, NULL);
        if (st == RUNG_OK)
            st = loader_open(d, NULL, 0, 4, &l, NULL);
        while (st == RUNG_OK) {
            st = loader_next(l, &b, NULL);
            if (st == RUNG_OK && !b)
                break;
        }
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        loader_free(l);
        dataset_free(d);
        is_done = st == RUNG_OK;
        assert_true(!is_done || fails > 10);
    }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEPS_FREED_MEMORY 1
#elif defined(__has_feature)
#define KEEPS_FREED_MEMORY (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define KEEPS_FREED_MEMORY 0
#endif

static size_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &total, &resident), 2);
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* The largest growth of the process while all of a set is read. */
static size_t growth(dataset *d, size_t batch_size)
{
    loader *l;
    const batch *b;
    size_t most = 0;
    const size_t before = resident_bytes();
    assert_int_equal(loader_open(d, NULL, 0, batch_size, &l, NULL), RUNG_OK);
    while (loader_next(l, &b, NULL) == RUNG_OK && b)
        if (resident_bytes() > before + most)
            most = resident_bytes() - before;
    loader_free(l);
    return most;
}

static void memory_is_constant(void **state)
{
    enum { MIB = 1 << 20, SAMPLES = 400 }; /* of 1 MiB: a file with a hole costs no disk */
    if (KEEPS_FREED_MEMORY)
        skip();                           /* a sanitizer's own growth hides ours */
    char head[128] = "\x93NUMPY\1\0\x76"; /* 118 bytes of text follow */
    memset(head + 10, ' ', 118);
    const int n = snprintf(head + 10, 118,
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 1, 512, 512)}",
                           (int)SAMPLES);
    head[10 + n] = '\n';
    put_file("big.npy", head, 128);
    assert_int_equal(truncate("big.npy", 128 + (off_t)SAMPLES * MIB), 0);
    dataset *d = open_images("big.npy", NULL, 2);
    assert_int_equal(dataset_size(d), SAMPLES);
    assert_in_range(growth(d, 2), 0, 48 * MIB); /* 16 read and mapped, 4 batches, and the heap's */
    dataset_free(d);
    make_folder("links");
    for (int i = 0; i < 3000; i++) {
        char path[64];
        snprintf(path, sizeof path, "links/%d.png", i);
        assert_int_equal(link("many/01.png", path), 0);
    }
    d = open_images("links", "resize=64x64", 2);
    assert_in_range(growth(d, 8), 0, 16 * MIB);
    dataset_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_do_not_matter), cmocka_unit_test(orders),
        cmocka_unit_test(wrong_arguments),       cmocka_unit_test(failures_come_in_their_place),
        cmocka_unit_test(sizes_that_differ),     cmocka_unit_test(stopping_midway),
        cmocka_unit_test(memory_runs_out),       cmocka_unit_test(memory_is_constant),
    };
    return cmocka_run_group_tests(tests, make_images, leave_folder);
}
