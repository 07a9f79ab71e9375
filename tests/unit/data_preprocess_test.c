/* The text form of preprocessing. */
#include "data_files.h"

#include "data/data.h"

static void identity_without_text(void **state)
{
    preprocess p;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(preprocess_parse(i ? "" : NULL, &p, NULL), RUNG_OK);
        assert_int_equal(p.resize_w + p.resize_h + p.crop_w + p.crop_h + p.channels, 0);
        assert_true(!p.bgr && !p.nhwc && p.scale == 1 && p.mean[2] == 0 && p.std[2] == 1);
    }
}

static void all_keys(void **state)
{
    preprocess p;
    assert_int_equal(preprocess_parse("resize=256,crop=224,scale=255,mean=0.485:0.456:0.406,"
                                      "std=0.229:0.224:0.225,color=bgr,layout=nhwc",
                                      &p, NULL),
                     RUNG_OK);
    assert_int_equal(p.resize_w, 256);
    assert_int_equal(p.resize_h, 0);
    assert_int_equal(p.crop_w, 224);
    assert_int_equal(p.crop_h, 224);
    assert_int_equal(p.channels, 3);
    assert_true(p.bgr && p.nhwc && p.scale == 255.0f);
    assert_true(p.mean[0] == 0.485f && p.mean[1] == 0.456f && p.mean[2] == 0.406f);
    assert_true(p.std[0] == 0.229f && p.std[1] == 0.224f && p.std[2] == 0.225f);
}

static void other_forms(void **state)
{
    preprocess p;
    assert_int_equal(
        preprocess_parse("crop=10x20,resize=320x240,color=gray,mean=-1e-2,std=.5", &p, NULL),
        RUNG_OK);
    assert_true(p.resize_w == 320 && p.resize_h == 240 && p.crop_w == 10 && p.crop_h == 20);
    assert_true(p.channels == 1 && p.mean[2] == -1e-2f && p.std[1] == 0.5f);
    assert_int_equal(preprocess_parse("std=1:2:3", &p, NULL), RUNG_OK);
    assert_int_equal(p.channels, 3);
}

static void mistakes_are_placed(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"reszie=3", "character 1:|\"reszie\"|resize, crop"},
        {"resize=3,,crop=1", "character 10|unknown key \"\""},
        {"resize", "character 7|expected ="},
        {"resize=", "character 8|pixels"},
        {"resize=0", "character 8|pixels"},
        {"resize=-4", "character 8|pixels"},
        {"resize=65536", "character 8|pixels"},
        {"resize=99999999999999999999", "character 8|pixels"},
        {"resize=4x", "character 10|pixels"},
        {"resize=4.5", "character 9|comma"},
        {"crop=5,resize=4 ", "character 16|comma"},
        {"crop=5,crop=6", "character 8|twice"},
        {"scale=0", "character 7|must not be 0"},
        {"scale=nan", "character 7|number"},
        {"scale=1e99", "character 7|number"},
        {"mean=1:2", "character 6|three"},
        {"mean=1:2:3:4", "character 6|three"},
        {"mean=1:x:3", "character 8|number"},
        {"std=1:0:3", "character 5|must not be 0"},
        {"color=red", "character 7|rgb, bgr or gray"},
        {"color=rgba", "character 7|rgb, bgr or gray"},
        {"layout=chw", "character 8|nchw"},
        {"color=gray,mean=1:2:3", "gray|give one"},
        {"resize=3,", "character 10|unknown key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        preprocess p;
        rung_error err = {""};
        assert_int_equal(preprocess_parse(cases[i].text, &p, &err), RUNG_EARGUMENT);
        assert_says(&err, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity_without_text),
        cmocka_unit_test(all_keys),
        cmocka_unit_test(other_forms),
        cmocka_unit_test(mistakes_are_placed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
