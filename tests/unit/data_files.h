/* Files for the tests of data: a folder of their own, and the formats in their smallest form. */
#ifndef RUNG_TESTS_DATA_FILES_H
#define RUNG_TESTS_DATA_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <png.h>

#include "unit.h"

#include "base/status.h"

/* cmocka's group setup: makes a new folder and enters it; the teardown removes it. */
static inline int enter_folder(void **state)
{
    static char name[64];
    snprintf(name, sizeof name, "%s/rung-data-XXXXXX", "/tmp");
    *state = mkdtemp(name);
    return *state && chdir(name) == 0 ? 0 : -1;
}

static inline int leave_folder(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", (const char *)*state);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static inline void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

static inline unsigned char *get_file(const char *path, size_t *n)
{
    static unsigned char bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    *n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return bytes;
}

static inline void make_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
}

/* A PNG of one gray (channels = 1) or RGB value. */
static inline void put_png(const char *path, int w, int h, int channels, uint8_t value)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)w,
                       .height = (png_uint_32)h,
                       .format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB};
    const size_t n = (size_t)w * (size_t)h * (size_t)channels;
    uint8_t *pixels = malloc(n);
    assert_non_null(pixels);
    memset(pixels, value, n);
    assert_true(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
    free(pixels);
}

/* The sentence must say each of the words, separated by |. */
static inline void assert_says(const rung_error *err, const char *words)
{
    char text[256];
    snprintf(text, sizeof text, "%s", words);
    for (char *at = strtok(text, "|"); at; at = strtok(NULL, "|"))
        if (!strstr(err->message, at))
            fail_msg("\"%s\" does not say \"%s\"", err->message, at);
}

#endif
