/* What data sets hold: their text form, labels, formats, and what is wrong with them. */
#include "data_files.h"

#include <zlib.h>

#include "data/data.h"
#include "data/npy.h"

static dataset *open_set(const char *spec, const dataset_options *opt)
{
    static const dataset_options none;
    dataset *d;
    rung_error err = {""};
    if (dataset_open(spec, opt ? opt : &none, &d, &err) != RUNG_OK)
        fail_msg("%s: %s", spec, err.message);
    return d;
}

static void assert_refused(const char *spec, const char *words)
{
    static const dataset_options none;
    dataset *d;
    rung_error err = {""};
    if (dataset_open(spec, &none, &d, &err) == RUNG_OK)
        fail_msg("%s is accepted", spec);
    assert_null(d);
    assert_says(&err, words);
}

/* The labels, and the first value of each sample's first input, in reading order. */
static size_t read_all(dataset *d, int64_t *labels, float *values)
{
    loader *l;
    const batch *b;
    rung_error err = {""};
    size_t n = 0;
    assert_int_equal(loader_open(d, NULL, 0, 3, &l, &err), RUNG_OK);
    for (;;) {
        if (loader_next(l, &b, &err) != RUNG_OK)
            fail_msg("%s", err.message);
        if (!b)
            break;
        assert_int_equal(b->first, n);
        assert_int_equal(b->inputs[0].t.dims[0], b->n);
        const rung_tensor *t = &b->inputs[0].t;
        size_t step = 1;
        for (int i = 1; i < t->rank; i++)
            step *= (size_t)t->dims[i];
        for (size_t i = 0; i < b->n; i++, n++) {
            labels[n] = b->labels ? b->labels[i] : -2;
            values[n] = ((const float *)t->data)[i * step];
        }
    }
    loader_free(l);
    return n;
}

static void class_folders(void **state)
{
    make_folder("classes");
    const char *const folders[] = {"b", "a", "B", ".hidden", "empty"}; /* sorted: B a b empty */
    for (int i = 0; i < 5; i++) {
        char path[64];
        snprintf(path, sizeof path, "classes/%s", folders[i]);
        make_folder(path);
    }
    put_png("classes/b/2.png", 4, 4, 3, 20);
    put_png("classes/b/10.PNG", 4, 4, 3, 10);
    put_png("classes/a/x.png", 4, 4, 3, 30);
    put_png("classes/.hidden/x.png", 4, 4, 3, 99);
    put_png("classes/empty/.x.png", 4, 4, 3, 99);
    make_folder("classes/zz");
    put_png("classes/zz/last.png", 4, 4, 3, 40);
    put_text("classes/a/notes.txt", "no image");
    int64_t labels[8];
    float values[8];
    dataset *d = open_set("images:classes", NULL);
    assert_true(dataset_has_labels(d) && !dataset_is_random(d));
    assert_int_equal(dataset_size(d), 4);
    assert_int_equal(read_all(d, labels, values), 4);
    const int64_t expected[] = {1, 2, 2, 4};
    assert_memory_equal(labels, expected, sizeof expected);
    assert_true(values[0] == 30 && values[1] == 10 && values[2] == 20 && values[3] == 40);
    dataset_free(d);
    d = open_set("classes/@1:3", NULL);
    assert_int_equal(read_all(d, labels, values), 2);
    assert_true(labels[0] == 2 && values[0] == 10 && values[1] == 20);
    dataset_free(d);
}

static void flat_folder(void **state)
{
    int64_t labels[8];
    float values[8];
    make_folder("flat@home");
    put_png("flat@home/b.png", 4, 4, 1, 2);
    put_png("flat@home/a, b.png", 4, 4, 1, 1);
    dataset *d = open_set("flat@home", NULL);
    assert_false(dataset_has_labels(d));
    assert_int_equal(read_all(d, labels, values), 2);
    assert_true(values[0] == 1 && values[1] == 2);
    dataset_free(d);
    static const char *const good[] = {
        "filename,label\nb.png,7\n\"a, b.png\",3\n",
        "\xef\xbb\xbf\"a, b.png\", 3 \r\n\r\nb.png,7",
    };
    for (int i = 0; i < 2; i++) {
        put_text("flat@home/labels.csv", good[i]);
        d = open_set("images:flat@home@0:", NULL);
        assert_int_equal(read_all(d, labels, values), 2);
        assert_true(labels[0] == 3 && labels[1] == 7);
        dataset_free(d);
    }
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "labels.csv|\"a, b.png\""},
        {"\"a, b.png\",1\n", "labels.csv|no line|\"b.png\""},
        {"filename,label\nb.png,7\nc.png,1\n", "labels.csv|line 3|\"c.png\""},
        {"b.png,7\nb.png,7\n", "line 2|already"},
        {"b.png,x\n", "line 1|\"x\""},
        {"b.png,-1\n", "line 1|\"-1\""},
        {"b.png,1.5\n", "line 1|\"1.5\""},
        {"b.png,9999999999999999999\n", "line 1|integer"},
        {"b.png\n", "line 1|filename,label"},
        {"x,y\n\n\"b.png,1\n", "line 3|filename,label"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text("flat@home/labels.csv", bad[i].text);
        assert_refused("flat@home", bad[i].words);
    }
}

static void folders_that_are_no_sets(void **state)
{
    make_folder("void");
    assert_refused("void", "void|no .jpg");
    assert_refused("images:nothing", "nothing|No such file");
    put_text("plain", "text");
    assert_refused("images:plain", "plain|folder");
    make_folder("void/class");
    assert_refused("void", "void|no .jpg");
    put_png("void/a.png", 2, 2, 3, 1);
    assert_refused("void", "a.png|class|folder for each class");
}

static void text_forms(void **state)
{
    static const float values[10];
    const rung_tensor t = {RUNG_F32, 2, {5, 2}, (void *)(uintptr_t)values};
    assert_int_equal(npy_write_file("five.npy", &t, NULL), RUNG_OK);
    assert_int_equal(npy_write_file("five@1:2", &t, NULL), RUNG_OK);
    static const struct {
        const char *spec;
        size_t size;
    } good[] = {
        {"five.npy", 5},    {"npy:five.npy", 5},       {"five.npy@0:5", 5},     {"five.npy@4:", 1},
        {"five.npy@:2", 2}, {"npy:./five.npy@2:3", 1}, {"npy:five@1:2@1:4", 3},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        dataset *d = open_set(good[i].spec, NULL);
        assert_int_equal(dataset_size(d), good[i].size);
        dataset_free(d);
    }
    static const char *const bad[][2] = {
        {"five.npy@0:6", "@0:6|5 samples"},
        {"five.npy@5:", "@5:|5 samples"},
        {"five.npy@3:3", "@3:3|no sample"},
        {"five.npy@3:2", "@3:2|no sample"},
        {"five.npy@:0", "no sample"},
        {"five.npy@1:9999999999999999999999", "too large"},
        {"five.npy@-1:3", "five.npy@-1:3|no such file"},
        {"image:five.npy", "images, npz"},
        {"npy:", "path is missing"},
        {"five.npz", "five.npz|no such file"},
        {"plain.txt", "plain.txt|no such file"},
        {"five@1:2", "five|no such file"},
        {"npz:five.npy", "five.npy|zip"},
        {"random", "model"},
        {"random@3:5", "model"},
        {"", "no such file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i][0], bad[i][1]);
    put_text("unknown.dat", "?");
    assert_refused("unknown.dat", "not recognised|FORMAT:PATH");
}

/* An idx file of n images of 3x2 or, with rank 1, labels; value i everywhere in image i. */
static size_t make_idx(unsigned char *out, int rank, int n)
{
    const unsigned char head[16] = {
        0, 0, 8, (unsigned char)rank, 0, 0, 0, (unsigned char)n, 0, 0, 0, 3, 0, 0, 0, 2};
    const size_t n_head = rank == 1 ? 8 : 16, each = rank == 1 ? 1 : 6;
    memcpy(out, head, n_head);
    for (int i = 0; i < n; i++)
        memset(out + n_head + (size_t)i * each, i, each);
    return n_head + (size_t)n * each;
}

static void put_gzip(const char *path, const void *bytes, size_t n)
{
    gzFile f = gzopen(path, "wb");
    assert_int_equal(gzwrite(f, bytes, (unsigned)n), n);
    assert_int_equal(gzclose(f), Z_OK);
}

static void idx_sets(void **state)
{
    unsigned char images[256], labels[64];
    const size_t n_images = make_idx(images, 3, 5), n_labels = make_idx(labels, 1, 5);
    put_file("t-images-idx3-ubyte", images, n_images);
    put_file("t-labels-idx1-ubyte", labels, n_labels);
    put_gzip("t-images.gz", images, n_images);
    int64_t got[8];
    float values[8];
    static const char *const specs[] = {"t-images-idx3-ubyte",
                                        "idx:t-images.gz,t-labels-idx1-ubyte"};
    for (int i = 0; i < 2; i++) {
        dataset *d = open_set(specs[i], NULL);
        assert_int_equal(read_all(d, got, values), 5);
        for (int k = 0; k < 5; k++)
            assert_true(got[k] == k && values[k] == (float)k);
        dataset_free(d);
    }
    size_t n_packed;
    unsigned char *packed = get_file("t-images.gz", &n_packed);
    for (size_t n = 0; n < n_packed; n++) {
        put_file("cut.gz", packed, n);
        assert_refused("idx:cut.gz", "cut.gz");
    }
    for (size_t n = 0; n < n_images; n++) {
        put_file("cut", images, n);
        assert_refused("idx:cut", "cut");
    }
    packed[n_packed - 6] ^= 1; /* the checksum */
    put_file("sum.gz", packed, n_packed);
    assert_refused("idx:sum.gz", "sum.gz|damaged");
    images[n_images] = 0;
    put_file("long", images, n_images + 1);
    assert_refused("idx:long", "long|47|46");
    put_gzip("long.gz", images, n_images + 1);
    assert_refused("idx:long.gz", "long.gz|length");
    put_file("three-labels", labels, make_idx(labels, 1, 3));
    assert_refused("idx:t-images.gz,three-labels", "three-labels|3 labels|5 images");
    assert_refused("idx:three-labels", "three-labels|expected images");
    assert_refused("idx:t-images.gz,t-images.gz", "expected labels");
    images[4] = 0x7f; /* two thousand million images in a few bytes */
    put_gzip("lie.gz", images, n_images);
    assert_refused("idx:lie.gz", "lie.gz|truncated");
    memset(images + 4, 0xff, 12);
    put_file("lie", images, n_images);
    assert_refused("idx:lie", "lie");
    images[0] = 1;
    put_file("magic", images, n_images);
    assert_refused("idx:magic", "not an idx");
    images[0] = 0;
    images[2] = 13;
    put_file("floats", images, n_images);
    assert_refused("idx:floats", "type 13");
}

static void cifar10_records(void **state)
{
    static unsigned char records[2 * 3073];
    records[0] = 9;
    records[1] = 200;
    records[3073] = 4;
    put_file("c.bin", records, sizeof records);
    int64_t labels[2];
    float values[2];
    dataset *d = open_set("c.bin", NULL);
    assert_int_equal(read_all(d, labels, values), 2);
    assert_true(labels[0] == 9 && labels[1] == 4 && values[0] == 200 && values[1] == 0);
    dataset_free(d);
    put_file("cut.bin", records, sizeof records - 1);
    assert_refused("cifar10:cut.bin", "cut.bin|3073|truncated");
    assert_refused("cut.bin", "not recognised");
    records[3073] = 10;
    put_file("label.bin", records, sizeof records);
    assert_refused("label.bin", "label.bin|record 1|10");
    put_file("none.bin", records, 0);
    assert_refused("cifar10:none.bin", "none.bin");
}

static void random_needs_a_shape(void **state)
{
    static const rung_tensor like[] = {{RUNG_F32, 3, {1, 2, 3}, NULL}, {RUNG_I64, 2, {1, 5}, NULL}};
    static const char *const names[] = {"image", "ids"};
    const dataset_options opt = {
        .random_like = like, .random_names = names, .n_random = 2, .seed = 5};
    int64_t labels[8];
    float values[8], again[8];
    dataset *d = open_set("random@10:18", &opt);
    assert_true(dataset_is_random(d) && !dataset_has_labels(d));
    assert_int_equal(read_all(d, labels, values), 8);
    assert_int_equal(read_all(d, labels, again), 8);
    assert_memory_equal(values, again, sizeof values);
    assert_true(values[0] != values[1]);
    loader *l;
    const batch *b;
    assert_int_equal(loader_open(d, NULL, 0, 8, &l, NULL), RUNG_OK);
    assert_int_equal(loader_next(l, &b, NULL), RUNG_OK);
    assert_int_equal(b->n_inputs, 2);
    assert_string_equal(b->inputs[1].name, "ids");
    assert_int_equal(b->inputs[1].t.dims[1], 5);
    bool has[2] = {false, false};
    for (int i = 0; i < 40; i++) {
        const int64_t v = ((const int64_t *)b->inputs[1].t.data)[i];
        assert_in_range(v, 0, 1);
        has[v] = true;
    }
    assert_true(has[0] && has[1]);
    loader_free(l);
    dataset_free(d);
    static const rung_tensor unknown = {RUNG_F32, 2, {1, -1}, NULL};
    const dataset_options bad = {.random_like = &unknown, .random_names = names, .n_random = 1};
    rung_error err = {""};
    assert_int_equal(dataset_open("random", &bad, &d, &err), RUNG_EARGUMENT);
    assert_says(&err, "image|dimension 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(class_folders),
        cmocka_unit_test(flat_folder),
        cmocka_unit_test(folders_that_are_no_sets),
        cmocka_unit_test(text_forms),
        cmocka_unit_test(idx_sets),
        cmocka_unit_test(cifar10_records),
        cmocka_unit_test(random_needs_a_shape),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
